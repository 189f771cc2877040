import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.data import Batch
from torch_geometric.nn.models.visnet import (
    GatedEquivariantBlock,
    ViSNetBlock,
)

from benchmarks.experiments.nets.graph import (
    neighbor_graph,
    relative_positions,
)


class ViSNet(torch.nn.Module):
    r"""PyG's :class:`~torch_geometric.nn.models.ViSNet` on the graph of
    nearest neighbors, which sees across the borders of a periodic box, with
    any features in the place of atomic numbers.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        num_layers (int): Number of layers.
        cutoff (float): The distance at which messages vanish.
        heads (int, optional): Number of attention heads. (default: :obj:`4`)
        k (int, optional): Number of neighbors. (default: :obj:`16`)
    """
    out_channels = 3  # those of a vector

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        cutoff: float,
        heads: int = 4,
        k: int = 16,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.k = k
        self.block = ViSNetBlock(
            num_layers=num_layers, hidden_channels=hidden_channels,
            num_heads=heads, cutoff=cutoff)
        self.block.embedding = Linear(in_channels, hidden_channels)
        self.block.neighbor_embedding.embedding = Linear(
            in_channels, hidden_channels)
        self.block.distance = Distances()
        half = hidden_channels // 2
        self.readout = torch.nn.ModuleList([
            GatedEquivariantBlock(hidden_channels, half,
                                  scalar_activation=True),
            GatedEquivariantBlock(half, 1),
        ])

    def forward(self, data: Batch) -> Tensor:
        # The block hands the last two on to its distances.
        x, vec = self.block(data.x, data, self.k)
        for layer in self.readout:
            x, vec = layer(x, vec)
        return vec.squeeze(2)


class Distances(torch.nn.Module):
    r"""Neighbors, how far they are, and where."""
    def forward(self, data: Batch, k: int) -> tuple[Tensor, Tensor, Tensor]:
        edge_index = neighbor_graph(data, k)
        vector = relative_positions(data, edge_index)
        return edge_index, vector.norm(dim=1), vector
