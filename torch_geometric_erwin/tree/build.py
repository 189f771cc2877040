r"""Builds ball trees from positions."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import LevelSlots, build_tree
from torch_geometric_erwin.ops.build_tree.orientation import Rotation
from torch_geometric_erwin.ops.periodic import make_cell, wrap
from torch_geometric_erwin.tree.ball_tree import BallTree, Level
from torch_geometric_erwin.tree.checks import (
    check_box,
    check_finite,
    check_levels,
    check_pos,
    check_range,
    check_rotations,
    check_vector,
)
from torch_geometric_erwin.tree.offsets import with_places

LARGE = 65536  # slots, from which on it matters that most are virtual


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
    rotations: Sequence[Rotation],
    completion: str,
    box: Tensor | Sequence[Any] | float | None,
    pbc: Tensor | Sequence[Any] | bool | None,
    ptr: Tensor | None,
) -> BallTree:
    r"""See :meth:`BallTree.build`."""
    check_pos(pos)
    ball_sizes, strides = check_levels(ball_size, strides)
    rotations = [*rotations] if torch.compiler.is_compiling() else (
        check_rotations(rotations, pos.size(1)))
    if completion not in ('balanced', 'perfect'):
        raise ValueError(f"Expected 'completion' to be 'balanced' or "
                         f"'perfect' (got {completion!r})")
    clouds = find_clouds(pos, batch, ptr)
    tree = periodic(BallTree(pos, clouds.batch, ()), clouds.ptr, box, pbc)
    order, pos = clouds.order, tree.pos
    levels = build_tree(
        pos if order is None else pos[order],
        clouds.ptr,
        ball_sizes,
        strides,
        rotations,
        box=None if tree.cell is None else tree.cell.detach(),
        completion=completion,
        order=order,
    )
    _warn_of_empty_slots(clouds.ptr, ball_sizes[0], levels[0])
    return replace(
        tree, rotations=tuple(rotations), completion=completion, levels=tuple(
            Level(size, stride, slots.ptr, slots.index, slots.inverse,
                  slots.mask, slots.group)
            for size, stride, slots in zip(ball_sizes, [*strides, None],
                                           levels, strict=True)))


def periodic(
    tree: BallTree,
    ptr: Tensor,
    box: Tensor | Sequence[Any] | float | None,
    pbc: Tensor | Sequence[Any] | bool | None = None,
) -> BallTree:
    r"""Returns the tree in a periodic cell, with its points inside."""
    if box is None:
        if pbc is not None:
            raise ValueError(f"Expected 'pbc' to be given along with 'box' "
                             f"(got {pbc!r} without one)")
        return tree
    return in_box(tree, check_box(box, tree.pos, ptr.numel() - 1, pbc))


def in_box(tree: BallTree, box: Tensor) -> BallTree:
    r"""Returns the tree in what :func:`check_box` returned."""
    return place(replace(tree, box=box, cell=make_cell(box)), tree.pos)


def place(tree: BallTree, pos: Tensor) -> BallTree:
    r"""Returns the tree with other positions, inside its cell."""
    if tree.cell is None:
        return replace(tree, pos=pos)
    pos, image = wrap(pos, tree.cell_of_points())
    return replace(tree, pos=pos, image=image)


def move(tree: BallTree, pos: Tensor) -> BallTree:
    r"""See :meth:`BallTree.with_pos`."""
    check_pos(pos)
    if pos.shape != tree.pos.shape or pos.device != tree.device:
        raise ValueError(f"Expected 'pos' to have the shape of the tree's "
                         f"positions, {list(tree.pos.shape)}, on "
                         f"{tree.device} (got {list(pos.shape)} on "
                         f"{pos.device})")
    check_finite(pos)
    check_range(pos)
    return place(with_places(tree), pos)


def _warn_of_empty_slots(ptr: Tensor, ball_size: int,
                         slots: LevelSlots) -> None:
    r"""Tells who has clouds that are much smaller than balls."""
    if torch.compiler.is_compiling():
        return
    points, all_slots = slots.inverse[0].numel(), slots.index[0].numel()
    if all_slots < 8 * points or all_slots < LARGE:
        return
    largest = int(ptr.diff().max())
    better = 1 << max(largest - 1, 0).bit_length()
    if 2 * better <= ball_size:
        warnings.warn(
            f"Of the slots of the balls, {1 - points / all_slots:.0%} are "
            f"virtual, as no cloud has more than {largest} points: "
            f"'ball_size={better}' holds them all, in less time and memory "
            f"(got 'ball_size={ball_size}')", stacklevel=4)


def find_clouds(pos: Tensor, batch: Tensor | None,
                ptr: Tensor | None) -> Clouds:
    r"""As :func:`group_clouds`, in compiled functions, too."""
    if not torch.compiler.is_compiling():
        return group_clouds(pos, batch, ptr)
    if batch is None and ptr is None:
        number = torch.arange(2, device=pos.device)
        return Clouds(number.new_zeros(pos.size(0)), number * pos.size(0),
                      None)
    return Clouds(*_opaque_clouds(pos.detach(), batch, ptr))


@torch.library.custom_op('torch_geometric_erwin::group_clouds',
                         mutates_args=())
def _opaque_clouds(pos: Tensor, batch: Tensor | None,
                   ptr: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    clouds = group_clouds(pos, batch, ptr)
    order = clouds.order
    if order is None:
        order = torch.arange(pos.size(0), device=pos.device)
    return clouds.batch.clone(), clouds.ptr.clone(), order


@_opaque_clouds.register_fake
def _fake_clouds(pos: Tensor, batch: Tensor | None,
                 ptr: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size() if ptr is None else (
        ptr.size(0))
    numbers = [pos.new_empty(n, dtype=torch.long)
               for n in (pos.size(0), size, pos.size(0))]
    return numbers[0], numbers[1], numbers[2]


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
