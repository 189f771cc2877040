r"""Checks of what users pass in."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.counts import MAX_LEVELS
from torch_geometric_erwin.ops.build_tree.orientation import (
    FARTHEST,
    Rotation,
    in_range,
)
from torch_geometric_erwin.ops.transformed import all_values


def check_pos(pos: Tensor, name: str = 'pos') -> None:
    if not isinstance(pos, Tensor):
        raise ValueError(f"Expected '{name}' to be a tensor "
                         f"(got {type(pos).__name__})")
    if pos.dim() != 2 or pos.size(1) < 1:
        raise ValueError(f"Expected '{name}' to have shape [num_points, dim] "
                         f"with dim >= 1 (got {list(pos.shape)})")
    if not pos.is_floating_point():
        raise ValueError(f"Expected '{name}' to be floating-point "
                         f"(got {pos.dtype})")


def check_finite(pos: Tensor, name: str = 'pos') -> None:
    pos = all_values(pos)
    # What is not finite leaves its mark on a sum, which is faster.
    if not bool(pos.sum().isfinite()) and not bool(pos.isfinite().all()):
        raise ValueError(f"Expected '{name}' to have finite coordinates (got "
                         f"NaN or infinity)")


def check_range(pos: Tensor) -> None:
    pos = all_values(pos)
    if not bool(in_range(pos)):
        raise ValueError(f"Expected 'pos' to have coordinates of at most "
                         f"{FARTHEST:g}, so that their squares are finite "
                         f"(got up to {pos.abs().max().item():g})")


def check_vector(value: Tensor, name: str, pos: Tensor,
                 size: int | None = None) -> None:
    r"""Checks a one-dimensional integer tensor that belongs to `pos`."""
    if not isinstance(value, Tensor) or value.dim() != 1:
        shape = list(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(f"Expected '{name}' to be a one-dimensional tensor "
                         f"(got {shape})")
    if value.is_floating_point() or value.dtype == torch.bool:
        raise ValueError(f"Expected '{name}' to hold integers "
                         f"(got {value.dtype})")
    if value.device != pos.device:
        raise ValueError(f"Expected '{name}' to be on the device of the "
                         f"positions, {pos.device} (got {value.device})")
    if size is not None and value.numel() != size:
        raise ValueError(f"Expected '{name}' to have one entry per point, "
                         f"{size} (got {value.numel()})")


def is_power_of_two(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)
            and value >= 1 and value & (value - 1) == 0)


def check_levels(
    ball_size: int | Sequence[int],
    strides: Sequence[int],
) -> tuple[list[int], list[int]]:
    r"""Returns one ball size per level and the strides between them."""
    strides = list(strides)
    if len(strides) >= MAX_LEVELS:
        raise ValueError(f"Expected 'strides' to make at most {MAX_LEVELS} "
                         f"levels (got {len(strides) + 1})")
    if isinstance(ball_size, Sequence):
        ball_sizes = list(ball_size)
    else:
        ball_sizes = [ball_size] * (len(strides) + 1)
    if len(ball_sizes) != len(strides) + 1:
        raise ValueError(
            f"Expected 'ball_size' to be an integer or have one entry per "
            f"level, {len(strides) + 1} (got {len(ball_sizes)})")
    for name, values in (('ball_size', ball_sizes), ('strides', strides)):
        for value in values:
            if not is_power_of_two(value):
                raise ValueError(f"Expected '{name}' to be a power of two "
                                 f"(got {value!r})")
    for stride, size in zip(strides, ball_sizes[:-1], strict=True):
        if stride > size:
            raise ValueError(
                f"Expected 'strides' to be at most the size of the balls "
                f"they pool, {size} (got {stride})")
    return ball_sizes, strides


def check_rotations(rotations: Sequence[Any],
                    dim: int | None = None) -> list[Rotation]:
    r"""Returns angles in degrees, and matrices as tuples of rows."""
    if rotations and all(isinstance(x, float) and math.isfinite(x)
                         for x in rotations):
        return [*rotations]
    out: list[Rotation] = []
    for rotation in rotations:
        matrix = np.array(rotation, dtype=np.float64)
        out.append(float(matrix) if matrix.ndim == 0 else tuple(
            map(tuple, matrix.tolist())))
        if matrix.ndim > 0:
            _check_matrix(matrix, dim)
        elif not math.isfinite(matrix):
            out.clear()
            break
    if not out:
        raise ValueError(f"Expected 'rotations' to be at least one finite "
                         f"angle in degrees, or matrix (got {rotations})")
    return out


def check_axes(axes: str, rotations: Sequence[Rotation]) -> None:
    if axes not in ('coordinate', 'principal'):
        raise ValueError(f"Expected 'axes' to be 'coordinate' or 'principal' "
                         f"(got {axes!r})")
    if axes == 'principal' and not all(isinstance(x, float)
                                       for x in rotations):
        raise ValueError(f"Expected 'rotations' to be angles, by which "
                         f"directions are turned between principal axes (got "
                         f"{list(rotations)})")


def _check_matrix(matrix: np.ndarray, dim: int | None) -> None:
    size = len(matrix) if dim is None else dim
    if matrix.shape != (size, size) or not np.allclose(
            matrix @ matrix.T, np.eye(size), atol=1e-5):
        raise ValueError(f"Expected matrices in 'rotations' to be orthogonal, "
                         f"of shape [{size}, {size}] (got "
                         f"{matrix.tolist()})")


def check_box(
    box: Tensor | Sequence[Any] | float,
    pos: Tensor,
    num_clouds: int,
    pbc: Tensor | Sequence[Any] | bool | None = None,
) -> Tensor:
    r"""Returns the periodic cell of every cloud, in at least float32: edges,
    shape :math:`(B, D)`, or vectors, shape :math:`(B, D, D)`, where
    directions that are not periodic have zeros.
    """
    dtype = torch.promote_types(pos.dtype, torch.float32)
    cell = torch.as_tensor(box, dtype=dtype, device=pos.device)
    dim = pos.size(1)
    if _is_lattice(cell, dim, num_clouds):
        cell = cell.expand(num_clouds, dim, dim)
    else:
        cell = _check_edges(cell, dim, num_clouds, pbc is None)
        if pbc is None:
            return cell
    if pbc is None:
        finite = torch.isfinite(cell).all()
    else:
        periodic = check_pbc(pbc, pos, num_clouds)
        if cell.dim() == 2:
            cell = torch.where(periodic, cell, 0.).diag_embed()
        cell = torch.where(periodic.unsqueeze(-1), cell, 0.)
        finite = (torch.isfinite(cell).all(-1)
                  & (cell.any(-1) | ~periodic)).all()
    if not torch.compiler.is_compiling() and not bool(finite):
        raise ValueError(f"Expected 'box' to have finite vectors, that are "
                         f"not zero, in all periodic directions (got "
                         f"{cell.tolist()})")
    return cell


def _is_lattice(cell: Tensor, dim: int, num_clouds: int) -> bool:
    r"""Whether a box consists of vectors rather than edges.

    A square of numbers can be both where there are as many clouds as
    dimensions. It is edges if all numbers are positive, as edges have to be.
    """
    shape = list(cell.shape)
    if cell.dim() == 3:
        _check_lattice(shape, dim, num_clouds)
        return True
    if shape != [dim, dim] or dim == 1 or torch.compiler.is_compiling():
        return False
    if dim != num_clouds or not bool((cell > 0).all()):
        return True
    length = torch.linalg.vector_norm(cell.detach(), dim=1)
    if bool(torch.linalg.det(cell.detach() / length.unsqueeze(1)).abs() > .05):
        warnings.warn(
            f"'box' is taken to be the edges of {num_clouds} clouds, one row "
            f"each. If it is the lattice of all of them, pass "
            f"'box.unsqueeze(0)', of shape [1, {dim}, {dim}]", stacklevel=5)
    return False


def _check_lattice(shape: list[int], dim: int, num_clouds: int) -> None:
    if torch.compiler.is_compiling():  # numbers of clouds are not known then
        return
    if shape not in ([1, dim, dim], [num_clouds, dim, dim]):
        raise ValueError(f"Expected 'box' to have vectors of shape [{dim}, "
                         f"{dim}] or [{num_clouds}, {dim}, {dim}] (got "
                         f"{shape})")


def _check_edges(cell: Tensor, dim: int, num_clouds: int,
                 all_periodic: bool) -> Tensor:
    if list(cell.shape) not in ([], [dim], [1, dim], [num_clouds, dim]):
        raise ValueError(
            f"Expected 'box' to be a number, edges of shape [{dim}] or "
            f"[{num_clouds}, {dim}], or vectors of shape [{dim}, {dim}] or "
            f"[{num_clouds}, {dim}, {dim}] (got {list(cell.shape)})")
    if torch.compiler.is_compiling() or not all_periodic:
        return cell.expand(num_clouds, dim)  # builders check as well
    if not bool(((cell > 0) & torch.isfinite(cell)).all()):
        raise ValueError(f"Expected 'box' to have positive, finite edges "
                         f"(got {cell.tolist()})")
    return cell.expand(num_clouds, dim)


def check_pbc(pbc: Tensor | Sequence[Any] | bool, pos: Tensor,
              num_clouds: int) -> Tensor:
    r"""Returns which directions are periodic, shape :math:`(B, D)`."""
    periodic = torch.as_tensor(pbc, device=pos.device)
    dim = pos.size(1)
    if periodic.dtype != torch.bool or list(periodic.shape) not in (
            [], [dim], [1, dim], [num_clouds, dim]):
        raise ValueError(f"Expected 'pbc' to be a boolean or have shape "
                         f"[{dim}] or [{num_clouds}, {dim}] (got "
                         f"{periodic.dtype} of shape "
                         f"{list(periodic.shape)})")
    return periodic.expand(num_clouds, dim)
