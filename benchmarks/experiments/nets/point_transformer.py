from typing import Optional  # PyG's inspector knows no `int | None`

import torch
from torch import Tensor
from torch.nn import GELU, LayerNorm, Linear
from torch_geometric.data import Batch
from torch_geometric.nn import MLP, PointTransformerConv
from torch_geometric.typing import OptTensor

from benchmarks.experiments.nets.graph import neighbor_graph
from torch_geometric_erwin.ops.periodic import nearest_image


class PointTransformer(torch.nn.Module):
    r"""A stack of PyG's
    :class:`~torch_geometric.nn.conv.PointTransformerConv` on the graph of
    nearest neighbors, in residual blocks.

    Its attention is one of vectors: each channel has a weight of its own, and
    there are no heads.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int): Number of layers.
        k (int, optional): Number of neighbors. (default: :obj:`12`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        k: int = 12,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.k = k
        self.lin_in = Linear(in_channels, hidden_channels)
        self.blocks = torch.nn.ModuleList([
            PointTransformerBlock(hidden_channels, dim)
            for _ in range(num_layers)
        ])
        self.norm = LayerNorm(hidden_channels)
        self.lin_out = Linear(hidden_channels, out_channels)

    def forward(self, data: Batch) -> Tensor:
        edge_index = neighbor_graph(data, self.k, loop=True)
        pos = data.pos
        if 'box' in data:
            pos = torch.cat([pos, data.box[data.batch]], dim=1)
        x = self.lin_in(data.x)
        for block in self.blocks:
            x = block(x, pos, edge_index)
        return self.lin_out(self.norm(x))


class PointTransformerBlock(torch.nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.lin_in = Linear(channels, channels)
        self.conv = PeriodicConv(
            channels, channels, mlp(dim, channels), mlp(channels, channels),
            add_self_loops=False)  # the graph has them
        self.lin_out = Linear(channels, channels)
        self.act = GELU()

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor) -> Tensor:
        out = self.act(self.lin_in(self.norm(x)))
        out = self.act(self.conv(out, pos, edge_index))
        return x + self.lin_out(out)


class PeriodicConv(PointTransformerConv):
    r"""Takes the nearest image of a neighbor where positions are followed by
    the edges of the box, shape :math:`(N, 2D)`.
    """
    def message(self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor,
                alpha_i: Tensor, alpha_j: Tensor, index: Tensor,
                ptr: OptTensor, size_i: Optional[int]) -> Tensor:  # noqa: UP045
        dim = self.pos_nn.in_channels
        box = pos_i[:, dim:] if pos_i.size(1) > dim else None
        offset = nearest_image(pos_i[:, :dim] - pos_j[:, :dim], box)
        return super().message(x_j, offset, torch.zeros_like(offset), alpha_i,
                               alpha_j, index, ptr, size_i)


def mlp(in_channels: int, out_channels: int) -> MLP:
    return MLP([in_channels, out_channels, out_channels], act='gelu',
               norm=None)
