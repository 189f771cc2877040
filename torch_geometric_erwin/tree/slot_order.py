r"""Ball trees whose points are numbered as their slots."""

from dataclasses import replace

import torch
from torch import Tensor

from torch_geometric_erwin.tree.structure import Level, TreeT


def in_slot_order(tree: TreeT) -> tuple[TreeT, Tensor, Tensor]:
    r"""See :meth:`BallTree.in_slot_order`."""
    if tree.virtual == 'copy':
        return _slots_as_points(tree)
    level = tree.levels[0]
    inverse = level.inverse[0]
    if level.mask is not None:  # skip the virtual slots
        inverse = (level.mask.cumsum(0) - 1)[inverse]
    index = torch.empty_like(inverse)
    index[inverse] = torch.arange(tree.num_points, device=tree.device)
    level = replace(
        level,
        index=tuple(inverse[x] for x in level.index),
        inverse=tuple(x[index] for x in level.inverse),
    )
    return _take(tree, index, level), index, inverse


def _slots_as_points(tree: TreeT) -> tuple[TreeT, Tensor, Tensor]:
    level = tree.levels[0]
    index, inverse = level.index[0], level.inverse[0]
    slots = level.slots
    if slots is None:
        slots = (torch.arange(level.num_slots, device=tree.device), )
    places = []
    for order in slots:
        place = torch.empty_like(order)
        place[order] = torch.arange(level.num_slots, device=tree.device)
        places.append(place)
    sizes = torch.zeros_like(level.ptr).scatter_add_(
        0, tree.batch[index] + 1, torch.ones_like(index))
    level = replace(level, ptr=sizes.cumsum(0), index=slots,
                    inverse=tuple(places), slots=None)
    return _take(tree, index, level), index, inverse


def _take(tree: TreeT, index: Tensor, level: Level) -> TreeT:
    return replace(
        tree,
        pos=tree.pos[index],
        batch=tree.batch[index],
        mass=None if tree.mass is None else tree.mass[index],
        levels=(level, *tree.levels[1:]),
        virtual='masked',
    )


def with_masks(tree: TreeT) -> TreeT:
    r"""See :meth:`BallTree.with_masks`."""
    def fill(mask: Tensor | None, index: Tensor) -> Tensor:
        return torch.ones_like(index, dtype=torch.bool) if mask is None else (
            mask)

    levels = []
    for i, level in enumerate(tree.levels):
        masks, group = level.masks, level.group
        if masks is not None:
            masks = tuple(map(fill, masks, level.index))
        if group is not None:
            group = group.clone()  # the compiler tells views apart, too
        elif i > 0:
            group = torch.arange(level.num_points, device=tree.device)
        levels.append(replace(level, mask=fill(level.mask, level.index[0]),
                              masks=masks, group=group))
    return replace(tree, levels=tuple(levels))
