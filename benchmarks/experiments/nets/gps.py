from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import Linear
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_geometric.data import Batch
from torch_geometric.nn import MLP, GINEConv, GPSConv

from benchmarks.experiments.nets.graph import (
    neighbor_graph,
    relative_positions,
)


class GPS(torch.nn.Module):
    r"""A stack of PyG's :class:`~torch_geometric.nn.conv.GPSConv`: message
    passing among nearest neighbors beside attention to all points of the
    cloud.

    Messages know relative positions; attention does not, so that moving a
    cloud changes nothing.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int): Number of layers.
        k (int, optional): Number of neighbors. (default: :obj:`12`)
        heads (int, optional): Number of attention heads.
            (default: :obj:`4`)
        dropout (float, optional): Dropout probability.
            (default: :obj:`0.`)
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
        heads: int = 4,
        dropout: float = 0.,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.k = k
        self.lin_in = Linear(in_channels, hidden_channels)

        def mlp(in_channels: int) -> MLP:
            return MLP([in_channels, hidden_channels, hidden_channels],
                       act='gelu', norm=None)

        self.edge_nn = mlp(dim)
        self.convs = torch.nn.ModuleList([
            GPSConv(hidden_channels, GINEConv(mlp(hidden_channels)), heads,
                    dropout, act='gelu', norm='layer_norm',
                    norm_kwargs={'mode': 'node'}) for _ in range(num_layers)
        ])
        self.lin_out = Linear(hidden_channels, out_channels)

    def forward(self, data: Batch) -> Tensor:
        edge_index = neighbor_graph(data, self.k)
        edge_attr = self.edge_nn(relative_positions(data, edge_index))
        x = self.lin_in(data.x)
        with differentiable_attention(data.pos.requires_grad):
            for conv in self.convs:
                x = conv(x, edge_index, data.batch, edge_attr=edge_attr)
        return self.lin_out(x)


def differentiable_attention(twice: bool) -> AbstractContextManager:
    # The fused kernels have no second derivatives, which forces train by.
    return sdpa_kernel(SDPBackend.MATH) if twice else nullcontext()
