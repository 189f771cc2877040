r"""The groups of slots that become the next level's points."""

import torch
from torch import Tensor

from torch_geometric_erwin.tree.structure import Level, Structure


def two_levels(tree: Structure) -> tuple[Level, Level]:
    if len(tree.levels) < 2:
        raise ValueError(
            "Expected 'strides' to be given when the tree was built, in "
            "order to coarsen it (got a tree with no coarser level)")
    return tree.levels[0], tree.levels[1]


def coarse_point(tree: Structure, slot: Tensor) -> Tensor:
    r"""Returns the coarse point that slots belong to."""
    level, coarse = two_levels(tree)
    assert level.stride is not None
    point = slot // level.stride
    if coarse.group is None:
        return point
    number = torch.zeros(level.num_slots // level.stride, dtype=torch.long,
                         device=slot.device)
    number[coarse.group] = torch.arange(coarse.num_points,
                                        device=slot.device)
    return number[point]


def children(tree: Structure) -> tuple[Tensor, Tensor | None]:
    r"""See :meth:`BallTree.children`."""
    level, coarse = two_levels(tree)
    assert level.stride is not None
    index = level.index[0].view(-1, level.stride)
    mask = level.mask
    if mask is not None:
        mask = mask.view(-1, level.stride)
    if coarse.group is not None:
        index = index[coarse.group]
        mask = None if mask is None else mask[coarse.group]
    return index, mask
