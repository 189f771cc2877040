r"""Points of clouds, a few neighbors at a time."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Batch

from benchmarks.experiments.nets.levels import ranks
from torch_geometric_erwin import BallTree


class Patches(NamedTuple):
    r"""Points of each patch, shape :math:`(P, K)`, which of them are there,
    and the slot of each point, shape :math:`(N)`.
    """
    points: Tensor
    mask: Tensor
    slot: Tensor

    @staticmethod
    def of(order: Tensor, batch: Tensor, num_clouds: int,
           size: int) -> 'Patches':
        r"""Cuts the clouds in order."""
        sizes = torch.bincount(batch, minlength=num_clouds)
        numbers = (sizes + size - 1) // size
        patch = ranks(batch) * numbers[batch] // sizes[batch]
        patch = patch + (numbers.cumsum(0) - numbers)[batch]
        return Patches.grouped(order, patch)

    @staticmethod
    def grouped(order: Tensor, patch: Tensor) -> 'Patches':
        r"""Cuts where the patches of the points in order, which come one
        after the other, say so.
        """
        row = (patch, ranks(patch))
        count = torch.bincount(patch)
        points = order.new_zeros(len(count), int(count.max()))
        mask = torch.zeros_like(points, dtype=torch.bool)
        slot = torch.empty_like(order)
        points[row], mask[row] = order, True
        slot[order] = patch * points.size(1) + row[1]
        return Patches(points, mask, slot)

    @staticmethod
    def balls(tree: BallTree) -> 'Patches':
        _, order, _ = tree.in_slot_order()
        return Patches.grouped(order, tree.ball_of_point()[order])

    def per_patch(self, x: Tensor) -> Tensor:
        r"""Returns what the first point of each patch, which is always there,
        knows, shape :math:`(P, *)`.
        """
        return x[self.points[:, 0]]

    def patch(self) -> Tensor:
        r"""Returns the patch of each point, shape :math:`(N)`."""
        return self.slot // self.points.size(1)

    def mean(self, x: Tensor) -> Tensor:
        r"""Returns the mean over the points of each patch, shape
        :math:`(P, C)`.
        """
        mask = self.mask.unsqueeze(2)
        return (x[self.points] * mask).sum(dim=1) / mask.sum(dim=1)


def plain_tree(data: Batch, ball_size: int) -> BallTree:
    r"""Builds a ball tree in one orientation."""
    box = data.box if 'box' in data else None
    return BallTree.build(data.pos, data.batch, ptr=data.ptr, box=box,
                          ball_size=ball_size, rotations=(0., ))
