import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.backends import cudnn
from torch.nn import GRU, LayerNorm, Linear, MultiheadAttention
from torch_geometric.data import Batch
from torch_geometric.nn import MLP
from torch_geometric.utils import to_dense_batch

from benchmarks.experiments.nets.coordinates import coordinates
from benchmarks.experiments.nets.gps import differentiable_attention
from benchmarks.experiments.nets.graph import mesh_graph, relative_positions
from benchmarks.experiments.nets.meshgraphnet import MeshGraphNetBlock
from benchmarks.experiments.nets.patches import Patches, plain_tree
from torch_geometric_erwin.nn.checks import check_heads

WAVES = 8  # of a coordinate, from 16 units of length to 1 / 8


class GraphViT(torch.nn.Module):
    r"""The mesh transformer of the `"EAGLE: Large-Scale Learning of Turbulent
    Fluid Dynamics with Mesh Transformers" <https://arxiv.org/abs/2302.10803>`_
    paper: message passing, a token for each cluster of nodes, which a
    recurrent unit gathers node by node, attention among the tokens of a
    cloud, and a last step of message passing among nodes that know the token
    of their cluster.

    Nodes and tokens know sines and cosines of where they are, and nodes of
    where they are in their cluster. Edges are those of the mesh where a batch
    has any, and those of the graph of nearest neighbors.

    Clusters are the balls of a tree, filled evenly, and the recurrent unit
    goes along the tree; the authors cluster by k-means into at most 10 to 40
    nodes, before training, and go from node to node as they are numbered. The
    network sees positions from the center of their cloud; those in a periodic
    box by their sines and cosines. It returns what it decodes, which the
    authors add to the state of the flow.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample of nodes and edges.
        out_channels (int): Size of each output sample.
        num_layers (int, optional): Number of steps of message passing before
            there are tokens. (default: :obj:`4`)
        heads (int, optional): Number of attention heads, among which
            :obj:`token_channels + 32 * dim` channels are shared out.
            (default: :obj:`4`)
        token_channels (int, optional): Size of each token.
            (default: :obj:`128`)
        num_blocks (int, optional): Number of blocks of attention among
            tokens. (default: :obj:`4`)
        ball_size (int, optional): The largest number of nodes of a cluster,
            a power of two. (default: :obj:`16`)
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
        num_layers: int = 4,
        heads: int = 4,
        token_channels: int = 128,
        num_blocks: int = 4,
        ball_size: int = 16,
        k: int = 0,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.ball_size = ball_size
        self.k = k
        channels, place = hidden_channels, 2 * WAVES * 2 * dim
        known = place + 2 * WAVES * dim  # and where in the cluster
        self.node_encoder = mlp(in_channels, channels, channels)
        self.edge_encoder = mlp(dim + 1, channels, channels)
        self.layers = torch.nn.ModuleList([
            MeshGraphNetBlock(channels, channels + known)
            for _ in range(num_layers)
        ])
        self.pool = RecurrentPooling(channels + known, token_channels)
        self.blocks = torch.nn.ModuleList([
            TokenBlock(token_channels, place, heads)
            for _ in range(num_blocks)
        ])
        self.norm = LayerNorm(token_channels)
        self.last = MeshGraphNetBlock(
            channels, channels + token_channels + known, norm=False)
        self.decoder = MLP([channels] * 3 + [out_channels], act='tanh',
                           norm=None)

    def forward(self, data: Batch) -> Tensor:
        tree = plain_tree(data, self.ball_size)
        clusters, pos = Patches.balls(tree), coordinates(data)
        known = torch.cat([waves(pos), waves(tree.offsets())], dim=1)
        edge_index = mesh_graph(data, self.k)
        x, edge = self._encode(data, known, edge_index)
        twice = data.pos.requires_grad
        with differentiable_attention(twice), differentiable_gru(twice):
            tokens = self.pool(torch.cat([x, known], dim=1), clusters)
            tokens = self._attend(tokens, waves(clusters.mean(pos)),
                                  clusters.per_patch(data.batch),
                                  data.num_graphs)
        x = torch.cat([x, tokens[clusters.patch()], known], dim=1)
        return self.decoder(self.last(x, edge, edge_index)[0])

    def _encode(self, data: Batch, known: Tensor,
                edge_index: Tensor) -> tuple[Tensor, Tensor]:
        vector = relative_positions(data, edge_index)
        length = vector.norm(dim=1, keepdim=True)
        edge = self.edge_encoder(torch.cat([vector, length], dim=1))
        x = self.node_encoder(data.x)
        for layer in self.layers:
            update, message = layer(torch.cat([x, known], 1), edge, edge_index)
            x, edge = x + update, edge + message
        return x, edge

    def _attend(self, tokens: Tensor, place: Tensor, cloud: Tensor,
                num_clouds: int) -> Tensor:
        tokens, mask = to_dense_batch(tokens, cloud, batch_size=num_clouds)
        place, _ = to_dense_batch(place, cloud, batch_size=num_clouds)
        for block in self.blocks:
            tokens = block(tokens, place, ~mask)
        return self.norm(tokens)[mask]


class RecurrentPooling(torch.nn.Module):
    r"""What a recurrent unit remembers of the nodes of each cluster."""
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.gru = GRU(in_channels, channels, batch_first=True)
        self.mlp = mlp(channels, channels, channels)

    def forward(self, x: Tensor, clusters: Patches) -> Tensor:
        out, _ = self.gru(x[clusters.points])
        last = clusters.mask.sum(dim=1) - 1
        return self.mlp(out[torch.arange(len(last), device=x.device), last])


class TokenBlock(torch.nn.Module):
    def __init__(self, channels: int, place: int, heads: int) -> None:
        super().__init__()
        check_heads(channels + place, heads)
        self.norm1 = LayerNorm(channels)
        self.attn = MultiheadAttention(channels + place, heads,
                                       batch_first=True)
        self.lin = Linear(channels + place, channels)
        self.norm2 = LayerNorm(channels)
        self.mlp = mlp(channels, channels, channels)

    def forward(self, x: Tensor, place: Tensor, empty: Tensor) -> Tensor:
        out = torch.cat([self.norm1(x), place], dim=2)
        out = self.attn(out, out, out, key_padding_mask=empty,
                        need_weights=False)[0]
        x = x + self.lin(out)
        return x + self.mlp(self.norm2(x))


def differentiable_gru(twice: bool) -> AbstractContextManager:
    # That of cuDNN has no second derivatives, which forces train by.
    return cudnn.flags(enabled=False) if twice else nullcontext()


def waves(pos: Tensor) -> Tensor:
    r"""Returns cosines and sines of coordinates, shape :math:`(N, 2DW)`."""
    octave = torch.arange(WAVES, device=pos.device, dtype=pos.dtype) - 3
    angle = (math.pi * 2**octave * pos.unsqueeze(2)).flatten(1)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def mlp(*channels: int) -> MLP:
    return MLP(list(channels), norm=None)
