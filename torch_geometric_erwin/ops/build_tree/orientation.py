r"""The orientations in which a cloud is cut into balls (eq. 11)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.periodic import beyond, rounded

FARTHEST = 1e18  # beyond, single precision cannot hold squares


@dataclass(frozen=True)
class Orientation:
    r"""How a cloud is turned before it is cut.

    Args:
        cosine: Cosine of the angle of rotation.
        sine: Sine of the angle; :obj:`0` leaves the cloud as it is.
        shift: By what part of its cell a periodic cloud is shifted first, so
            that a ball may reach across the cell's faces.
        slide: By what part of a ball the balls of a one-dimensional cloud,
            which cannot be turned, move along the line.
        matrix: What positions (as rows) are multiplied by, instead of being
            turned by the angle, shape :math:`(D, D)`.
    """
    cosine: float
    sine: float
    shift: float
    slide: float
    matrix: np.ndarray | None = None


Rotation = float | Sequence[Sequence[float]]  # an angle in degrees, or rows


def split_rotations(rotations: Sequence[Rotation],
                    dim: int) -> tuple[list[float], list[float]]:
    r"""Returns the angles and no matrices, where there are angles only, and
    else, for all of them, the numbers of the matrices, one after the other.
    """
    angles = [x if isinstance(x, float) else 0. for x in rotations]
    if all(isinstance(x, float) for x in rotations):
        return angles, []
    matrices = [plane_rotations(x, dim) if isinstance(x, float) else
                np.array(x, dtype=np.float64) for x in rotations]
    return angles, np.stack(matrices).flatten().tolist()


def plane_rotations(angle: float, dim: int) -> np.ndarray:
    r"""Returns the matrix that turns rows as :func:`turn` does by an angle."""
    way = orientations([angle], [])[0]
    eye = torch.eye(dim, dtype=torch.float64)
    return turn(eye, way, None).numpy()


def orientations(rotations: list[float],
                 matrices: list[float]) -> list[Orientation]:
    r"""Makes the orientations of what :func:`split_rotations` returns."""
    count = len(rotations)
    dim = math.isqrt(len(matrices) // count)
    out = []
    for i, angle in enumerate(rotations):
        radians = math.radians(angle)
        sine = 0. if angle % 360 == 0 else math.sin(radians)
        matrix = None
        if matrices:
            matrix = np.array(matrices[i * dim**2:(i + 1) * dim**2])
            matrix = matrix.reshape(dim, dim)
            sine = 0. if np.array_equal(matrix, np.eye(dim)) else 1.
        out.append(
            Orientation(math.cos(radians), sine, orientation_shift(i, count),
                        angle / 90 % 1, matrix))
    return out


def orientation_shift(i: int, count: int) -> float:
    r"""Returns by what part of its cell a periodic cloud is shifted."""
    return i / count


def turn(pos: Tensor, way: Orientation, box: Tensor | None) -> Tensor:
    r"""Rotates by one angle in the planes of axes 0 and 1, 1 and 2, ..., or
    by a matrix.

    Every step is one rounded operation on single coordinates, so a point's
    result depends neither on the other points nor on the device.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        way: The orientation.
        box: Each point's periodic cell, shape :math:`(N, D)` or
            :math:`(N, R, D)`, see :mod:`torch_geometric_erwin.ops.periodic`.
    """
    if box is not None and way.shift != 0.:
        pos = _shift(pos, box, way.shift)
    if way.sine == 0. or pos.size(1) == 1:
        return pos
    columns = list(pos.unbind(1))
    if way.matrix is not None:
        return torch.stack([
            inner_product(columns, column, pos.dtype)
            for column in way.matrix.T], dim=1)
    c = rounded(way.cosine, pos.dtype)
    s = rounded(way.sine, pos.dtype)
    for i in range(len(columns) - 1):
        u, v = columns[i], columns[i + 1]
        columns[i] = u * c - v * s
        columns[i + 1] = u * s + v * c
    return torch.stack(columns, dim=1)


def inner_product(columns: Sequence[Tensor], numbers: np.ndarray,
                  dtype: torch.dtype) -> Tensor:
    total = columns[0] * rounded(float(numbers[0]), dtype)
    for column, number in zip(columns[1:], numbers[1:], strict=True):
        total = total + column * rounded(float(number), dtype)
    return total


def _shift(pos: Tensor, cell: Tensor, by: float) -> Tensor:
    over = beyond(pos, cell, by)
    by = rounded(by, pos.dtype)
    if cell.dim() == 2:
        pos = pos + cell * by
        return pos - over * cell
    steps = by - over
    for k in range(pos.size(1)):
        pos = pos + steps[:, k:k + 1] * cell[:, k]
    return pos


def in_range(pos: Tensor) -> Tensor:
    r"""Whether all coordinates are finite and not too large."""
    return (pos.abs() <= FARTHEST).all()
