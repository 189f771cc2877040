r"""The groups of slots that become the next level's points."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch_geometric_erwin.tree.ball_tree import Level


def coarse_point(slot: Tensor, level: 'Level', coarse: 'Level') -> Tensor:
    r"""Returns the coarse point that slots of :obj:`level` belong to."""
    assert level.stride is not None
    point = slot // level.stride
    if coarse.group is None:
        return point
    number = torch.zeros(level.num_slots // level.stride, dtype=torch.long,
                         device=slot.device)
    number[coarse.group] = torch.arange(coarse.num_points,
                                        device=slot.device)
    return number[point]


def children(level: 'Level',
             coarse: 'Level') -> tuple[Tensor, Tensor | None]:
    r"""See :meth:`BallTree.children`."""
    assert level.stride is not None
    index = level.index[0].view(-1, level.stride)
    mask = level.mask
    if mask is not None:
        mask = mask.view(-1, level.stride)
    if coarse.group is not None:
        index = index[coarse.group]
        mask = None if mask is None else mask[coarse.group]
    return index, mask
