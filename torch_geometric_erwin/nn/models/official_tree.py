r"""What the authors' code does to trees beyond what their paper says, for
weights that were trained with it.
"""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.tree import BallTree


def official_rotations(angle: float, dim: int) -> tuple[Any, ...]:
    r"""Returns the authors' orientations: in space they turn by the same
    angle around all axes, :math:`\mathbf{R}_z \mathbf{R}_y \mathbf{R}_x`.
    """
    if angle <= 0:
        return (0., )
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def around(i: int, j: int) -> np.ndarray:
        matrix = np.eye(dim)
        matrix[i, i] = matrix[j, j] = cosine
        matrix[i, j], matrix[j, i] = -sine, sine
        return matrix

    if dim == 2:
        return 0., around(0, 1)
    return 0., around(0, 1) @ around(2, 0) @ around(1, 2)


def order_pairs(tree: BallTree) -> BallTree:
    r"""Orders the slots of each four as the authors' code leaves them, which
    does not sort a pair by its own widest axis. It finds the median of the
    four by the C++ library's selection; what comes out depends on how they
    lay before: along the axis of their eight, in the second half of those,
    and anyhow in the first, which is taken to be sorted.
    """
    level = tree.levels[0]
    index = level.index[0]
    whole = index.numel() // 8 * 8
    eight = index[:whole].view(-1, 8)
    four = _sort(eight.view(-1, 4), tree.pos, eight).view(-1, 2, 4)
    first, second = four.unbind(1)
    four = torch.stack([_sort(first, tree.pos, first),
                        _select(second, tree.pos)], dim=1)
    keeps = _is_subtree(tree, index, level.mask, whole).view(-1, 1, 1)
    four = torch.where(keeps, four, eight.view(-1, 2, 4))
    index = torch.cat([four.flatten(), index[whole:]])
    inverse = torch.empty_like(level.inverse[0])
    slots = torch.arange(index.numel(), device=index.device)
    if level.mask is not None:  # virtual slots repeat points before them
        real = torch.where(level.mask, index, inverse.numel())
        inverse = inverse.new_empty(inverse.numel() + 1)
        inverse = inverse.scatter(0, real, slots)[:-1]
    else:
        inverse = inverse.scatter(0, index, slots)
    level = replace(level, index=(index, *level.index[1:]),
                    inverse=(inverse, *level.inverse[1:]))
    return replace(tree, levels=(level, *tree.levels[1:]))


def _is_subtree(tree: BallTree, index: Tensor, mask: Tensor | None,
                whole: int) -> Tensor:
    r"""Whether eight slots are real, and a part of one cloud's tree."""
    cloud = tree.batch[index]
    slot = torch.arange(index.numel(), device=index.device)
    begins = torch.ones_like(cloud, dtype=torch.bool)
    begins[1:] = cloud[1:] != cloud[:-1]
    start = torch.where(begins, slot, 0).cummax(0).values[:whole].view(-1, 8)
    fits = (start[:, 0] == start[:, 7]) & (
        (slot[:whole].view(-1, 8)[:, 0] - start[:, 0]) % 8 == 0)
    if mask is None:
        return fits
    return fits & mask[:whole].view(-1, 8).all(1)


def _along(points: Tensor, pos: Tensor, node: Tensor) -> Tensor:
    r"""Returns coordinates on the widest axes of nodes."""
    box = pos.detach()[node]
    axis = (box.amax(1) - box.amin(1)).argmax(1)
    axis = axis.repeat_interleave(points.size(0) // node.size(0))
    axis = axis.view(-1, 1, 1).expand(-1, points.size(1), 1)
    return pos.detach()[points].gather(2, axis).squeeze(2)


def _sort(points: Tensor, pos: Tensor, node: Tensor) -> Tensor:
    return points.gather(1, _along(points, pos, node).argsort(1))


def _select(points: Tensor, pos: Tensor) -> Tensor:
    r"""Moves four points as the selection of the third does."""
    order = _along(points, pos, points).argsort(1)
    rank = torch.zeros_like(order).scatter(
        1, order, torch.arange(4, device=order.device).expand_as(order))
    digits = torch.tensor([64, 16, 4, 1], device=rank.device)
    table = torch.from_numpy(SELECTED).to(rank.device)
    return points.gather(1, table[(rank * digits).sum(1)])


def _selected(ranks: tuple[int, ...]) -> list[int]:
    r"""Returns which of four lies where after one round of quickselect, with
    the median of the last three as its pivot, and sorting the rest.
    """
    pivot = sorted((1, 2, 3), key=ranks.__getitem__)[1]
    lies = [*range(4)]
    lies[0], lies[pivot] = lies[pivot], lies[0]
    low, high = 1, 4
    while True:
        while ranks[lies[low]] < ranks[pivot]:
            low += 1
        high -= 1
        while ranks[pivot] < ranks[lies[high]]:
            high -= 1
        if low >= high:
            break
        lies[low], lies[high] = lies[high], lies[low]
        low += 1
    part = slice(low, 4) if low <= 2 else slice(0, low)
    lies[part] = sorted(lies[part], key=ranks.__getitem__)
    return lies


SELECTED = np.zeros((256, 4), dtype=np.int64)
for _ranks in itertools.permutations(range(4)):
    _code = sum(rank * 4**(3 - i) for i, rank in enumerate(_ranks))
    SELECTED[_code] = _selected(_ranks)
