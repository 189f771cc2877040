r"""Coarser and coarser points of clouds."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Batch

from torch_geometric_erwin import BallTree, knn, radius
from torch_geometric_erwin.ops.periodic import nearest_image


class Level(NamedTuple):
    r"""Points of :obj:`num_clouds` clouds, one after the other."""
    pos: Tensor
    batch: Tensor
    num_clouds: int
    box: Tensor | None

    @staticmethod
    def of(data: Batch) -> 'Level':
        return Level(data.pos, data.batch, data.num_graphs,
                     data.box if 'box' in data else None)

    def coarsen(self, stride: int) -> tuple['Level', Tensor]:
        r"""Keeps one point of :obj:`stride`, a power of two, and returns
        which: neighbors in the order of a ball tree are close in space, so
        what is kept is spread out.
        """
        tree = BallTree.build(self.pos, self.batch, ball_size=stride,
                              rotations=(0., ), box=self.box)
        _, index, _ = tree.in_slot_order()
        index = index[ranks(self.batch) % stride == 0]
        return self._replace(pos=self.pos[index],
                             batch=self.batch[index]), index

    def nearest(self, other: 'Level', k: int) -> Tensor:
        r"""Connects points of the other level to their nearest ones of this,
        which come first, shape :math:`(2, E)`.
        """
        pairs = knn(self.pos, other.pos, k, self.batch, other.batch,
                    batch_size=self.num_clouds, box=self.box)
        assert isinstance(pairs, Tensor)  # and no shifts
        return pairs.flip(0)

    def within(self, other: 'Level', r: float) -> Tensor:
        r"""Connects points of the other level to those of this, which come
        first, up to a distance of :obj:`r`, shape :math:`(2, E)`.
        """
        pairs = radius(self.pos, other.pos, r, self.batch, other.batch,
                       batch_size=self.num_clouds, box=self.box)
        assert isinstance(pairs, Tensor)  # and no shifts
        return pairs.flip(0)

    def vectors(self, other: 'Level', edge_index: Tensor) -> Tensor:
        r"""Returns where the former lie as seen from the latter, shape
        :math:`(E, D)`.
        """
        source, target = edge_index
        box = None if self.box is None else self.box[other.batch[target]]
        return nearest_image(self.pos[source] - other.pos[target], box)


def ranks(group: Tensor) -> Tensor:
    r"""Numbers the members of each group, which come one after the other."""
    count = torch.bincount(group)
    first = (count.cumsum(0) - count)[group]
    return torch.arange(len(group), device=group.device) - first
