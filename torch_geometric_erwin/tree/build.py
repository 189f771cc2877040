r"""Builds ball trees from positions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import build_tree
from torch_geometric_erwin.tree.ball_tree import BallTree, Level
from torch_geometric_erwin.tree.checks import (
    check_box,
    check_levels,
    check_pos,
    check_rotations,
    check_vector,
)


class Clouds(NamedTuple):
    r"""How points are grouped into clouds.

    Args:
        batch: The cloud of each point, shape :math:`(N)`.
        ptr: Where each cloud begins once the points are sorted by cloud,
            shape :math:`(B + 1)`.
        order: The sorted points, shape :math:`(N)`; :obj:`None` if they are
            sorted already.
    """
    batch: Tensor
    ptr: Tensor
    order: Tensor | None


def build(
    pos: Tensor,
    batch: Tensor | None,
    ball_size: int | Sequence[int],
    strides: Sequence[int],
    rotations: Sequence[float],
    completion: str,
    box: Tensor | Sequence[float] | float | None,
    ptr: Tensor | None,
) -> BallTree:
    r"""See :meth:`BallTree.build`."""
    check_pos(pos)
    ball_sizes, strides = check_levels(ball_size, strides)
    rotations = check_rotations(rotations)
    if completion not in ('balanced', 'perfect'):
        raise ValueError(f"Expected 'completion' to be 'balanced' or "
                         f"'perfect' (got {completion!r})")
    clouds = group_clouds(pos, batch, ptr)
    cell = None
    if box is not None:
        cell = check_box(box, pos, clouds.ptr.numel() - 1)
        pos = wrap(pos, cell[clouds.batch])
    order = clouds.order
    levels = build_tree(
        pos if order is None else pos[order],
        clouds.ptr,
        ball_sizes,
        strides,
        rotations,
        box=cell,
        completion=completion,
        order=order,
    )
    return BallTree(
        pos, clouds.batch,
        tuple(
            Level(size, stride, slots.ptr, slots.index, slots.inverse,
                  slots.mask, slots.group)
            for size, stride, slots in zip(ball_sizes, [*strides, None],
                                           levels, strict=True)), box=cell)


def wrap(pos: Tensor, box: Tensor) -> Tensor:
    r"""Moves positions into :math:`[0, L)` of their periodic cell; the
    gradient passes unchanged.
    """
    wrapped = torch.remainder(pos, box.detach())
    return torch.where(wrapped >= box, wrapped - box, wrapped)


def group_clouds(pos: Tensor, batch: Tensor | None,
                 ptr: Tensor | None) -> Clouds:
    r"""Checks and completes the batch vector or the offsets."""
    num_points = pos.size(0)
    if ptr is not None:
        return _from_ptr(pos, batch, ptr)
    if batch is None:
        batch = _on_device(np.zeros(num_points, dtype=np.int64), pos)
        ptr = torch.tensor([0, num_points], device=pos.device)
        return Clouds(batch, ptr, None)
    check_vector(batch, 'batch', pos, num_points)
    batch = batch.long()
    if num_points == 0:
        return Clouds(batch, batch.new_zeros(1), None)
    is_sorted = _is_sorted(batch)
    ends = batch[[0, -1]] if is_sorted else torch.stack(batch.aminmax())
    low, high = ends.tolist()
    if low < 0:
        raise ValueError(f"Expected 'batch' to hold no negative number "
                         f"(got {low})")
    order = None if is_sorted else torch.sort(batch, stable=True).indices
    in_order = batch if order is None else batch[order]
    ptr = torch.searchsorted(
        in_order, torch.arange(high + 2, device=pos.device))
    return Clouds(batch, ptr, order)


def _on_device(array: np.ndarray, pos: Tensor) -> Tensor:
    r"""NumPy works on one thread; torch's would still be spinning when a
    builder starts its own.
    """
    return torch.from_numpy(array).to(pos.device)


def _is_sorted(batch: Tensor) -> bool:
    if batch.device.type == 'cpu':  # on one thread, too
        numbers = batch.numpy()
        return bool((numbers[1:] >= numbers[:-1]).all())
    return bool((batch[1:] >= batch[:-1]).all())


def _from_ptr(pos: Tensor, batch: Tensor | None, ptr: Tensor) -> Clouds:
    num_points = pos.size(0)
    check_vector(ptr, 'ptr', pos)
    ptr = ptr.long()
    host = ptr.tolist()
    ends = (host[0], host[-1]) if host else None
    if ends != (0, num_points) or sorted(host) != host:
        raise ValueError(f"Expected 'ptr' to rise from 0 to the number of "
                         f"points, {num_points} (got {host})")
    sizes = np.diff(host)
    made = _on_device(np.repeat(np.arange(len(sizes)), sizes), pos)
    if batch is not None:
        check_vector(batch, 'batch', pos, num_points)
        if not torch.equal(batch.long(), made):
            raise ValueError("Expected 'batch' to be what 'ptr' says (got "
                             "another grouping of the points)")
    return Clouds(made, ptr, None)
