r"""Positions relative to the centers of balls, in periodic cells, too.

A ball is compact in the frame in which it was cut, where it never crosses
the cell's faces. There each point has an image of its own.
"""

from dataclasses import replace

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.centers import (
    group_centers,
    means,
    slot_masses,
)
from torch_geometric_erwin.ops.build_tree.orientation import orientation_shift
from torch_geometric_erwin.ops.distance import at_least_float
from torch_geometric_erwin.ops.periodic import (
    beyond,
    fractions,
    translations,
)
from torch_geometric_erwin.tree.groups import children, two_levels
from torch_geometric_erwin.tree.structure import Partition, Structure, TreeT

PARTS = 127  # of a cell's vector, in which places are kept


def coarsen(tree: TreeT) -> TreeT:
    r"""See :meth:`BallTree.coarsen`."""
    level, coarse = two_levels(tree)
    assert level.stride is not None
    center, mass = group_centers(unwrap(tree, 0), tree.mass, level.index[0],
                                 level.mask, level.stride)
    batch = tree.batch[level.index[0][::level.stride]]
    if coarse.group is not None:
        center, mass = center[coarse.group], mass[coarse.group]
        batch = batch[coarse.group]
    return replace(tree, pos=center, mass=mass, batch=batch, image=None,
                   levels=tree.levels[1:])


def ball_offsets(tree: Structure, partition: int | None) -> Tensor:
    r"""See :meth:`BallTree.offsets`."""
    numbers = (range(tree.num_orientations) if partition is None else
               [partition])
    parts = [tree.partition(i) for i in numbers]
    index = torch.stack([part.index for part in parts])
    masks = [part.mask for part in parts if part.mask is not None]
    mask = torch.stack(masks).view(-1, tree.ball_size) if masks else None
    if tree.cell is None:
        pos = at_least_float(tree.pos)[index]
    else:
        pos = torch.stack([unwrap(tree, i)[part.index] for i, part in
                           zip(numbers, parts, strict=True)])
    offset = pos.view(-1, tree.ball_size, pos.size(-1))
    # Any origin serves, and one nearby keeps numbers small.
    offset = offset - offset.detach()[:, :1]
    masses = slot_masses(offset, tree.mass, index.view(-1, tree.ball_size),
                         mask)
    center, _ = means(offset, masses)
    offset = (offset - center.unsqueeze(1)).view(pos.shape)
    found = [rows[part.inverse] for rows, part in zip(offset, parts,
                                                      strict=True)]
    return torch.stack(found) if partition is None else found[0]


def child_offsets(tree: Structure) -> Tensor:
    r"""See :meth:`BallTree.child_offsets`."""
    index, mask = children(tree)
    offset = unwrap(tree, 0)[index]
    offset = offset - offset.detach()[:, :1]
    center, _ = means(offset, slot_masses(offset, tree.mass, index, mask))
    offset = offset - center.unsqueeze(1)
    return offset if mask is None else offset * mask.unsqueeze(-1)


def unwrap(tree: Structure, partition: int) -> Tensor:
    r"""Returns positions in at least float32, of each point that image which
    lies with its ball's first point as they did when the ball was cut.
    """
    pos, level = at_least_float(tree.pos), tree.levels[0]
    if tree.cell is None or (partition == 0 and level.place is None):
        return pos
    part = tree.partition(partition)
    cell = tree.cell_of_points()
    if level.place is None:
        times = _frame(tree, partition)
        times = times - _first_of_ball(times, part, tree.ball_size)
    else:
        along = fractions(pos.detach(), cell.detach())
        along = along - _first_of_ball(along, part, tree.ball_size)
        place = level.place[partition][part.inverse]
        times = torch.round(along - place.to(along.dtype) / PARTS)
    return pos - translations(times, cell)


def _frame(tree: Structure, partition: int) -> Tensor:
    r"""Returns how many vectors of the cell take points, as they were when
    the tree was built, into the frame of an orientation.
    """
    shift = orientation_shift(partition, tree.num_orientations)
    return beyond(at_least_float(tree.pos.detach()),
                  tree.cell_of_points().detach(), shift)


def _first_of_ball(x: Tensor, part: Partition, size: int) -> Tensor:
    return x[part.index[::size]][part.inverse // size]


def with_places(tree: TreeT) -> TreeT:
    r"""Returns a periodic tree that remembers where points lie in their
    balls, so that they may move: for each slot how far it is from the ball's
    first, in :obj:`1 / PARTS` of the cell's vectors.
    """
    if tree.cell is None or tree.levels[0].place is not None:
        return tree
    levels, at = [], tree
    for i in range(tree.num_levels):
        at = at if i == 0 else coarsen(at)
        places = tuple(_places(at, o) for o in range(at.num_orientations))
        levels.append(replace(at.levels[0], place=places))
    return replace(tree, levels=tuple(levels))


def _places(tree: Structure, partition: int) -> Tensor:
    part = tree.partition(partition)
    assert tree.cell is not None
    along = fractions(at_least_float(tree.pos.detach()),
                      tree.cell_of_points().detach())
    along = along - _frame(tree, partition)
    along = along - _first_of_ball(along, part, tree.ball_size)
    return (along * PARTS).round().to(torch.int8)[part.index]
