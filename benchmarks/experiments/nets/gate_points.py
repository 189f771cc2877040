import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from e3nn.nn.models.v2106.gate_points_message_passing import MessagePassing
from torch import Tensor
from torch.nn import Linear
from torch_geometric.data import Batch

from benchmarks.experiments.nets.graph import (
    neighbor_graph,
    relative_positions,
)


class GatePoints(torch.nn.Module):
    r"""e3nn's tensor products on the graph of nearest neighbors: features of
    every degree of the rotation group meet spherical harmonics of the edges,
    weighted by a network of their lengths, as in `"E(3)-equivariant graph
    neural networks for data-efficient and accurate interatomic potentials"
    <https://arxiv.org/abs/2101.03164>`_.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Number of hidden features of each degree and
            parity.
        num_layers (int): Number of layers.
        cutoff (float): The distance at which messages vanish.
        max_degree (int, optional): The highest degree. (default: :obj:`1`)
        num_basis (int, optional): Number of radial functions.
            (default: :obj:`8`)
        k (int, optional): Number of neighbors. (default: :obj:`16`)
    """
    out_channels = 3  # those of a vector

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        cutoff: float,
        max_degree: int = 1,
        num_basis: int = 8,
        k: int = 16,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.cutoff = cutoff
        self.num_basis = num_basis
        self.k = k
        harmonics = o3.Irreps.spherical_harmonics(max_degree)
        hidden = o3.Irreps([(hidden_channels, (degree, parity))
                            for degree in range(max_degree + 1)
                            for parity in (1, -1)])
        self.harmonics = o3.SphericalHarmonics(
            harmonics, normalize=True, normalization='component')
        self.lin = Linear(in_channels, hidden_channels)
        self.layers = MessagePassing(
            [f'{hidden_channels}x0e', *[hidden] * num_layers, '1x1o'],
            f'{in_channels}x0e', harmonics, [num_basis, hidden_channels],
            float(k))

    def forward(self, data: Batch) -> Tensor:
        edge_index = neighbor_graph(data, self.k)
        # The library counts axes as y, z, x.
        vector = relative_positions(data, edge_index)[:, [1, 2, 0]]
        radial = soft_one_hot_linspace(
            vector.norm(dim=1), 0., self.cutoff, self.num_basis,
            basis='smooth_finite', cutoff=True) * self.num_basis**0.5
        out = self.layers(self.lin(data.x), data.x, *edge_index,
                          self.harmonics(vector), radial)
        return out[:, [2, 0, 1]]
