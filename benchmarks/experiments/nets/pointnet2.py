from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.nn import MLP, PointNetConv
from torch_geometric.utils import scatter

from benchmarks.experiments.nets.levels import Level
from torch_geometric_erwin.ops.periodic import nearest_image


class PointNet2(torch.nn.Module):
    r"""The network of the `"PointNet++: Deep Hierarchical Feature Learning on
    Point Sets in a Metric Space" <https://arxiv.org/abs/1706.02413>`_ paper
    for a row per point: sets of neighbors are abstracted to fewer and fewer
    points by PyG's :class:`~torch_geometric.nn.conv.PointNetConv`, and
    features are interpolated on the way back.

    Points to keep are spread along a ball tree, not by farthest point
    sampling, sets are those of the nearest neighbors, and norms are those of
    a point, so that clouds do not depend on the batch they are in.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (list[int]): Size of each hidden sample, one for each
            coarse level.
        out_channels (int): Size of each output sample.
        strides (list[int], optional): How many points one is kept of, powers
            of two, one for each coarse level. (default: :obj:`[4, 4, 4]`)
        k (int, optional): Number of neighbors in a set.
            (default: :obj:`16`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        out_channels: int,
        strides: Sequence[int] = (4, 4, 4),
        k: int = 16,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.strides = list(strides)
        self.k = k
        fine = [in_channels, *hidden_channels[:-1]]
        back = [*hidden_channels[1:], hidden_channels[-1]]
        self.convs = torch.nn.ModuleList(
            PeriodicPointNetConv(mlp(before + dim, after, after), dim)
            for before, after in zip(fine, hidden_channels, strict=True))
        self.mlps = torch.nn.ModuleList(
            mlp(below + skip, channels, channels) for below, skip, channels
            in zip(back, fine, hidden_channels, strict=True))
        first = hidden_channels[0]
        self.mlp = MLP([first, first, out_channels], norm=None)

    def forward(self, data: Batch) -> Tensor:
        x, level, skips = data.x, Level.of(data), []
        for conv, stride in zip(self.convs, self.strides, strict=True):
            coarse, _ = level.coarsen(stride)
            skips.append((x, level))
            x, level = conv(x, level, coarse, self.k), coarse
        for mlp in reversed(self.mlps):
            skip, fine = skips.pop()
            x = torch.cat([interpolate(x, level, fine), skip], dim=1)
            x, level = mlp(x), fine
        return self.mlp(x)


class PeriodicPointNetConv(PointNetConv):
    r"""Takes the nearest image of a neighbor where positions are followed by
    the edges of the box, shape :math:`(N, 2D)`.
    """
    def __init__(self, local_nn: torch.nn.Module, dim: int) -> None:
        super().__init__(local_nn, add_self_loops=False)
        self.dim = dim

    def forward(self, x: Tensor, fine: Level, coarse: Level,
                k: int) -> Tensor:
        pos = tuple(
            level.pos if level.box is None else
            torch.cat([level.pos, level.box[level.batch]], dim=1)
            for level in (fine, coarse))
        return super().forward((x, None), pos, fine.nearest(coarse, k))

    def message(self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor) -> Tensor:
        box = pos_i[:, self.dim:] if pos_i.size(1) > self.dim else None
        offset = nearest_image(pos_j[:, :self.dim] - pos_i[:, :self.dim], box)
        return super().message(x_j, torch.zeros_like(offset), offset)


def interpolate(x: Tensor, coarse: Level, fine: Level, k: int = 3) -> Tensor:
    r"""Returns means of the nearest points, weighted by one over the square
    of their distance.
    """
    edge_index = coarse.nearest(fine, k)
    source, target = edge_index
    square = coarse.vectors(fine, edge_index).square().sum(1, keepdim=True)
    weight = 1 / (square + 1e-8)
    size = len(fine.pos)
    total = scatter(weight, target, dim_size=size)
    return scatter(x[source] * (weight / total[target]), target,
                   dim_size=size)


def mlp(*channels: int) -> MLP:
    return MLP(list(channels), norm='layer_norm', norm_kwargs={'mode': 'node'},
               plain_last=False)
