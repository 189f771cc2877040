r"""Checks of what users pass in."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
    if not bool(torch.isfinite(pos).all()):
        raise ValueError(f"Expected '{name}' to have finite coordinates (got "
                         f"NaN or infinity)")


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


def check_rotations(rotations: Sequence[float]) -> list[float]:
    rotations = [float(angle) for angle in rotations]
    if not rotations or not all(math.isfinite(a) for a in rotations):
        raise ValueError(f"Expected 'rotations' to be at least one finite "
                         f"angle in degrees (got {rotations})")
    return rotations


def check_box(box: Tensor | Sequence[float] | float, pos: Tensor,
              num_clouds: int) -> Tensor:
    r"""Returns the periodic cell of every cloud, shape :math:`(B, D)`."""
    if isinstance(box, Tensor) and box.requires_grad:
        raise ValueError("Expected 'box' not to require gradients, which "
                         "would not be its own (got a tensor that does)")
    cell = torch.as_tensor(box, dtype=pos.dtype, device=pos.device)
    dim = pos.size(1)
    if list(cell.shape) not in ([], [dim], [1, dim], [num_clouds, dim]):
        raise ValueError(
            f"Expected 'box' to be a number or have shape [{dim}] or "
            f"[{num_clouds}, {dim}] (got {list(cell.shape)})")
    if not bool(((cell > 0) & torch.isfinite(cell)).all()):
        raise ValueError(f"Expected 'box' to have positive, finite edges "
                         f"(got {cell.tolist()})")
    return cell.expand(num_clouds, dim)
