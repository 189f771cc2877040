import torch
from torch import Tensor
from torch.nn import GELU, LayerNorm, Linear
from torch_geometric.data import Batch
from torch_geometric.nn import MLP, GATv2Conv
from torch_geometric.utils import scatter

from benchmarks.experiments.nets.graph import mesh_graph, relative_positions


class GAT(torch.nn.Module):
    r"""A stack of PyG's :class:`~torch_geometric.nn.conv.GATv2Conv`, from the
    `"How Attentive are Graph Attention Networks?"
    <https://arxiv.org/abs/2105.14491>`_ paper, in residual blocks. Attention
    knows relative positions and lengths of edges: those of the mesh where a
    batch has any, and those of the graph of nearest neighbors.

    Attention to points that are all alike returns what they are, wherever
    they lie. So each point first learns the mean of what an MLP makes of its
    edges.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int, optional): Number of layers. (default: :obj:`6`)
        heads (int, optional): Number of attention heads.
            (default: :obj:`4`)
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
        num_layers: int = 6,
        heads: int = 4,
        k: int = 0,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.k = k
        self.lin_in = Linear(in_channels, hidden_channels)
        self.edge_nn = MLP([dim + 1, hidden_channels, hidden_channels],
                           act='gelu', norm=None)
        self.blocks = torch.nn.ModuleList([
            GATBlock(hidden_channels, heads, dim + 1)
            for _ in range(num_layers)
        ])
        self.norm = LayerNorm(hidden_channels)
        self.lin_out = Linear(hidden_channels, out_channels)

    def forward(self, data: Batch) -> Tensor:
        edge_index = mesh_graph(data, self.k)
        vector = relative_positions(data, edge_index)
        edge_attr = torch.cat([vector, vector.norm(dim=1, keepdim=True)], 1)
        around = scatter(self.edge_nn(edge_attr), edge_index[1],
                         dim_size=data.num_nodes, reduce='mean')
        x = self.lin_in(data.x) + around
        for block in self.blocks:
            x = block(x, edge_index, edge_attr)
        return self.lin_out(self.norm(x))


class GATBlock(torch.nn.Module):
    def __init__(self, channels: int, heads: int, edge_dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        # Of a point to itself, all is zero.
        self.conv = GATv2Conv(channels, channels // heads, heads,
                              edge_dim=edge_dim, fill_value=0.)
        self.act = GELU()
        self.lin = Linear(channels, channels)

    def forward(self, x: Tensor, edge_index: Tensor,
                edge_attr: Tensor) -> Tensor:
        out = self.conv(self.norm(x), edge_index, edge_attr)
        return x + self.lin(self.act(out))
