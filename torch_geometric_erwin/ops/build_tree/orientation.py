r"""The orientations in which a cloud is cut into balls (eq. 11)."""

import math
from dataclasses import dataclass

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
    """
    cosine: float
    sine: float
    shift: float
    slide: float


def orientations(rotations: list[float]) -> list[Orientation]:
    r"""Makes one orientation of every angle (in degrees)."""
    count = len(rotations)
    out = []
    for i, angle in enumerate(rotations):
        radians = math.radians(angle)
        sine = 0. if angle % 360 == 0 else math.sin(radians)
        out.append(
            Orientation(math.cos(radians), sine, orientation_shift(i, count),
                        angle / 90 % 1))
    return out


def orientation_shift(i: int, count: int) -> float:
    r"""Returns by what part of its cell a periodic cloud is shifted."""
    return i / count


def turn(pos: Tensor, way: Orientation, box: Tensor | None) -> Tensor:
    r"""Rotates by one angle in the planes of axes 0 and 1, 1 and 2, ....

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
    c = rounded(way.cosine, pos.dtype)
    s = rounded(way.sine, pos.dtype)
    columns = list(pos.unbind(1))
    for i in range(len(columns) - 1):
        u, v = columns[i], columns[i + 1]
        columns[i] = u * c - v * s
        columns[i + 1] = u * s + v * c
    return torch.stack(columns, dim=1)


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
