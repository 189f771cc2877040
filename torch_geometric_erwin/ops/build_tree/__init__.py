r"""Builds the slots of a ball tree (Algorithm 1 of the Erwin paper)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import register
from torch_geometric_erwin.ops.build_tree.layout import where_true
from torch_geometric_erwin.ops.build_tree.orientation import (
    Rotation,
    split_rotations,
)
from torch_geometric_erwin.ops.transformed import is_plain


@dataclass(frozen=True)
class LevelSlots:
    r"""The slots of one level, for :math:`N` points in :math:`B` clouds.

    Args:
        ptr: Where each cloud's points begin, shape :math:`(B + 1)`.
        index: For each orientation the point in each slot, shape :math:`(S)`;
            a virtual slot repeats the point before it.
        inverse: For each orientation the slot of each point, shape
            :math:`(N)`.
        mask: Which slots are real, shape :math:`(S)`; :obj:`None` if all are.
        group: Which group of slots of the level before each point stands
            for, shape :math:`(N)`; :obj:`None` if that is its own number.
    """
    ptr: Tensor
    index: tuple[Tensor, ...]
    inverse: tuple[Tensor, ...]
    mask: Tensor | None
    group: Tensor | None


def build_tree(
    pos: Tensor,
    ptr: Tensor,
    ball_sizes: list[int],
    strides: list[int],
    rotations: Sequence[Rotation],
    *,
    box: Tensor | None = None,
    completion: str = 'balanced',
    axes: str = 'coordinate',
    order: Tensor | None = None,
    backend: str = 'auto',
) -> list[LevelSlots]:
    r"""Cuts clouds into balls, at every level and in every orientation.

    Args:
        pos: Positions, one cloud after the other, shape :math:`(N, D)`.
        ptr: Where each cloud begins, shape :math:`(B + 1)`, on any device.
        ball_sizes: The slots of a ball, one number per level.
        strides: The slots that make a point of the next level.
        rotations: The angle of each orientation, in degrees, or the matrix
            that positions (as rows) are multiplied by.
        box: Each cloud's periodic cell, shape :math:`(B, D)` or
            :math:`(B, R, D)`, see :mod:`torch_geometric_erwin.ops.periodic`;
            positions must lie in the cell already.
        completion: :obj:`"balanced"` or :obj:`"perfect"`.
        axes: :obj:`"coordinate"` to split nodes at their widest axes,
            :obj:`"principal"` along those of their largest variance.
        order: The point that each row of :obj:`pos` is, shape :math:`(N)`;
            :obj:`None` if that is the row's number.
        backend: :obj:`"cpp"`, :obj:`"triton"`, :obj:`"torch"`, or
            :obj:`"auto"`: C++ on the CPU, where it was built, Triton on
            GPUs that it serves, and torch elsewhere. All of them give the
            same balls.

    Raises:
        ValueError: If positions are not finite.
    """
    angles, matrices = split_rotations(rotations, pos.size(1))
    # Calling an operator costs as much as building a small tree.
    build = register.build_tree if is_plain(pos) else (
        torch.ops.torch_geometric_erwin.build_tree)
    flat = build(
        pos.detach(), ptr, box, order, ball_sizes, strides, angles, matrices,
        completion == 'perfect', axes == 'principal', backend)
    count = len(rotations)
    width = 2 * count + 3
    levels: list[LevelSlots] = []
    for i in range(len(ball_sizes)):
        start, mask, group, *rest = flat[i * width:(i + 1) * width]
        index, inverse = tuple(rest[:count]), tuple(rest[count:])
        # A compiler that does not know the sizes keeps what may be needed:
        known = not torch.compiler.is_compiling()
        full = known and index[0].numel() == inverse[0].numel()
        same = i == 0 or (known and levels[-1].index[0].numel() ==
                          strides[i - 1] * inverse[0].numel())
        levels.append(
            LevelSlots(start, index, inverse, None if full else mask,
                       None if same else group))
    return levels


__all__ = ['LevelSlots', 'build_tree', 'where_true']
