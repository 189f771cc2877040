import torch
from torch import Tensor
from torch.nn import LayerNorm, Sequential
from torch_geometric.data import Batch
from torch_geometric.nn import MLP
from torch_geometric.utils import scatter

from benchmarks.experiments.nets.graph import mesh_graph, relative_positions


class MeshGraphNet(torch.nn.Module):
    r"""The network of the `"Learning Mesh-Based Simulation with Graph
    Networks" <https://arxiv.org/abs/2010.03409>`_ paper: features of nodes
    and edges are encoded, processed by message passing with residual updates
    of both, and those of nodes are decoded.

    Edges are those of the mesh where a batch has any, or else those of the
    graph of nearest neighbors. They know relative positions and lengths.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int, optional): Number of steps of message passing.
            (default: :obj:`15`)
        k (int, optional): Number of neighbors where there is no mesh.
            (default: :obj:`16`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 15,
        k: int = 16,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.k = k
        self.node_encoder = mlp(in_channels, hidden_channels)
        self.edge_encoder = mlp(dim + 1, hidden_channels)
        self.blocks = torch.nn.ModuleList([
            MeshGraphNetBlock(hidden_channels) for _ in range(num_layers)
        ])
        self.decoder = MLP([hidden_channels] * 3 + [out_channels], norm=None)

    def forward(self, data: Batch) -> Tensor:
        edge_index = mesh_graph(data, self.k)
        vector = relative_positions(data, edge_index)
        length = vector.norm(dim=1, keepdim=True)
        edge = self.edge_encoder(torch.cat([vector, length], dim=1))
        x = self.node_encoder(data.x)
        for block in self.blocks:
            x, edge = block(x, edge, edge_index)
        return self.decoder(x)


class MeshGraphNetBlock(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edge_nn = mlp(3 * channels, channels)
        self.node_nn = mlp(2 * channels, channels)

    def forward(self, x: Tensor, edge: Tensor,
                edge_index: Tensor) -> tuple[Tensor, Tensor]:
        source, target = edge_index
        message = self.edge_nn(torch.cat([edge, x[source], x[target]], dim=1))
        total = scatter(message, target, dim_size=len(x))
        return (x + self.node_nn(torch.cat([x, total], dim=1)),
                edge + message)


def mlp(in_channels: int, channels: int) -> Sequential:
    r"""Two hidden layers, and a norm of what comes out."""
    return Sequential(MLP([in_channels] + [channels] * 3, norm=None),
                      LayerNorm(channels))
