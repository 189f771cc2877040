import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.data import Batch
from torch_geometric.nn import MLP

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.nn import MPNNConv


class MPNN(torch.nn.Module):
    r"""Message passing alone: a stack of
    :class:`~torch_geometric_erwin.nn.MPNNConv` on the graph of nearest
    neighbors.

    A layer sees one neighbor further than the last: information travels at
    most :obj:`num_layers` edges.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int): Number of layers.
        k (int, optional): Number of neighbors. (default: :obj:`16`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        k: int = 16,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.k = k
        self.lin = Linear(in_channels, hidden_channels)
        self.convs = torch.nn.ModuleList([
            MPNNConv(hidden_channels, dim=dim) for _ in range(num_layers)
        ])
        self.mlp = readout(hidden_channels, out_channels)

    def forward(self, data: Batch) -> Tensor:
        box = data.box if 'box' in data else None
        # The tree finds neighbors and knows where points are.
        tree = BallTree.build(data.pos, data.batch, ptr=data.ptr, box=box,
                              ball_size=32, rotations=(0., ))
        edges = tree.edges(tree.knn_graph(self.k))
        x = self.lin(data.x)
        for conv in self.convs:
            x = conv(x, edges, tree)
        return self.mlp(x)


def readout(in_channels: int, out_channels: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.LayerNorm(in_channels),
        MLP([in_channels, in_channels, out_channels], act='gelu', norm=None))
