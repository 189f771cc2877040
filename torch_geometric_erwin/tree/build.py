r"""Builds ball trees from positions."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import LevelSlots, build_tree
from torch_geometric_erwin.ops.build_tree.orientation import Rotation
from torch_geometric_erwin.ops.periodic import make_cell, wrap
from torch_geometric_erwin.tree.checks import (
    check_axes,
    check_box,
    check_finite,
    check_levels,
    check_pos,
    check_range,
    check_rotations,
)
from torch_geometric_erwin.tree.clouds import find_clouds
from torch_geometric_erwin.tree.offsets import with_places
from torch_geometric_erwin.tree.structure import Level, TreeT

LARGE = 65536  # slots, from which on it matters that most are virtual


def build(
    kind: type[TreeT],
    pos: Tensor,
    batch: Tensor | None,
    ball_size: int | Sequence[int],
    strides: Sequence[int],
    rotations: Sequence[Rotation],
    completion: str,
    axes: str,
    box: Tensor | Sequence[Any] | float | None,
    pbc: Tensor | Sequence[Any] | bool | None,
    ptr: Tensor | None,
) -> TreeT:
    r"""See :meth:`BallTree.build`."""
    check_pos(pos)
    ball_sizes, strides = check_levels(ball_size, strides)
    rotations = [*rotations] if torch.compiler.is_compiling() else (
        check_rotations(rotations, pos.size(1)))
    if completion not in ('balanced', 'perfect'):
        raise ValueError(f"Expected 'completion' to be 'balanced' or "
                         f"'perfect' (got {completion!r})")
    check_axes(axes, rotations)
    clouds = find_clouds(pos, batch, ptr)
    tree = periodic(kind(pos, clouds.batch, ()), clouds.ptr, box, pbc)
    order, pos = clouds.order, tree.pos
    slots = build_tree(
        pos if order is None else pos[order],
        clouds.ptr,
        ball_sizes,
        strides,
        rotations,
        box=None if tree.cell is None else tree.cell.detach(),
        completion=completion,
        axes=axes,
        order=order,
    )
    _warn_of_empty_slots(clouds.ptr, ball_sizes[0], slots[0])
    levels = tuple(
        Level(size, stride, at.ptr, at.index, at.inverse, at.mask, at.group)
        for size, stride, at in zip(ball_sizes, [*strides, None], slots,
                                    strict=True))
    return kind(pos, clouds.batch, levels, None, tree.box, tree.cell,
                tree.image, 'masked', tuple(rotations), completion, axes)


def periodic(
    tree: TreeT,
    ptr: Tensor,
    box: Tensor | Sequence[Any] | float | None,
    pbc: Tensor | Sequence[Any] | bool | None = None,
) -> TreeT:
    r"""Returns the tree in a periodic cell, with its points inside."""
    if box is None:
        if pbc is not None:
            raise ValueError(f"Expected 'pbc' to be given along with 'box' "
                             f"(got {pbc!r} without one)")
        return tree
    return in_box(tree, check_box(box, tree.pos, ptr.numel() - 1, pbc))


def in_box(tree: TreeT, box: Tensor) -> TreeT:
    r"""Returns the tree in what :func:`check_box` returned."""
    return place(replace(tree, box=box, cell=make_cell(box)), tree.pos)


def place(tree: TreeT, pos: Tensor) -> TreeT:
    r"""Returns the tree with other positions, inside its cell."""
    if tree.cell is None:
        return replace(tree, pos=pos)
    pos, image = wrap(pos, tree.cell_of_points())
    return replace(tree, pos=pos, image=image)


def move(tree: TreeT, pos: Tensor) -> TreeT:
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
