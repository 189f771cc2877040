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

    Edges are those of the mesh where a batch has any, and those of the graph
    of nearest neighbors, which cross the gaps between parts of a mesh. They
    know relative positions and lengths. The paper's other edges connect what
    is within a radius.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int, optional): Number of steps of message passing.
            (default: :obj:`15`)
        k (int, optional): Number of nearest neighbors to connect points to,
            besides those by the mesh. Zero needs a mesh. (default: :obj:`0`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 15,
        k: int = 0,
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
            update, message = block(x, edge, edge_index)
            x, edge = x + update, edge + message
        return self.decoder(x)


class MeshGraphNetBlock(torch.nn.Module):
    r"""Returns updates of nodes and edges, not what is updated."""
    def __init__(self, channels: int, node_channels: int | None = None,
                 norm: bool = True) -> None:
        super().__init__()
        node_channels = node_channels or channels
        self.edge_nn = mlp(channels + 2 * node_channels, channels, norm)
        self.node_nn = mlp(node_channels + channels, channels, norm)

    def forward(self, x: Tensor, edge: Tensor,
                edge_index: Tensor) -> tuple[Tensor, Tensor]:
        source, target = edge_index
        message = self.edge_nn(torch.cat([edge, x[source], x[target]], dim=1))
        total = scatter(message, target, dim_size=len(x))
        return self.node_nn(torch.cat([x, total], dim=1)), message


def mlp(in_channels: int, channels: int, norm: bool = True) -> Sequential:
    r"""Two hidden layers, and a norm of what comes out."""
    layers = Sequential(MLP([in_channels] + [channels] * 3, norm=None))
    return layers.append(LayerNorm(channels)) if norm else layers
