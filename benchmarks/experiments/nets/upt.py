import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear
from torch_geometric.data import Batch
from torch_geometric.nn import MLP
from torch_geometric.utils import scatter, to_dense_batch

from benchmarks.experiments.nets.coordinates import coordinates
from benchmarks.experiments.nets.gps import differentiable_attention
from benchmarks.experiments.nets.levels import Level


class UPT(torch.nn.Module):
    r"""The network of the `"Universal Physics Transformers: A Framework For
    Efficiently Scaling Neural Operators" <https://arxiv.org/abs/2402.12365>`_
    paper: messages of neighbors to a few points of each cloud, attention
    among these, then among a fixed number of latent tokens that have looked
    at them, and points that look at the tokens.

    Points ask by their positions alone: from the center of their cloud, or
    by sines and cosines in a periodic box. Those that gather messages are
    spread along a ball tree, and gather from their nearest neighbors.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        depths (list[int], optional): Number of blocks among points that
            gather messages, and among latent tokens.
            (default: :obj:`[2, 2]`)
        heads (int, optional): Number of attention heads.
            (default: :obj:`4`)
        num_latents (int, optional): Number of latent tokens of a cloud.
            (default: :obj:`64`)
        stride (int, optional): How many points there are to one that gathers
            messages, a power of two. (default: :obj:`16`)
        mlp_ratio (int, optional): Hidden size of the feed-forward networks,
            in units of their input. (default: :obj:`4`)
        k (int, optional): Number of neighbors. (default: :obj:`32`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        depths: tuple[int, int] = (2, 2),
        heads: int = 4,
        num_latents: int = 64,
        stride: int = 16,
        mlp_ratio: int = 4,
        k: int = 32,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        channels = hidden_channels
        self.pool = SupernodePooling(in_channels, channels, stride, k, dim)
        self.embed = PositionEmbedding(channels, dim)
        self.query_nn = MLP([channels] * 3, act='gelu', norm=None)
        self.latents = torch.nn.Parameter(torch.randn(num_latents, channels))

        def blocks(depth: int) -> torch.nn.ModuleList:
            return torch.nn.ModuleList(
                Block(channels, heads, mlp_ratio) for _ in range(depth))

        self.encoder, self.approximator = map(blocks, depths)
        self.to_latents, self.to_points = blocks(2)
        self.norm = LayerNorm(channels)
        self.lin = Linear(channels, out_channels)

    def forward(self, data: Batch) -> Tensor:
        pos = self.embed(coordinates(data))
        x, index, batch = self.pool(data)
        x, there = to_dense_batch(x + pos[index], batch,
                                  batch_size=data.num_graphs)
        query, mask = to_dense_batch(self.query_nn(pos), data.batch,
                                     batch_size=data.num_graphs)
        with differentiable_attention(data.pos.requires_grad):
            x = self.to_points(query, self._process(x, there))
        return self.lin(self.norm(x[mask]))

    def _process(self, x: Tensor, there: Tensor) -> Tensor:
        there = there[:, None, None]
        for block in self.encoder:
            x = block(x, x, there)
        latents = self.latents.expand(len(x), -1, -1)
        x = self.to_latents(latents, x, there)
        for block in self.approximator:
            x = block(x, x)
        return x


class SupernodePooling(torch.nn.Module):
    r"""Gathers what is around some of the points."""
    def __init__(self, in_channels: int, channels: int, stride: int, k: int,
                 dim: int) -> None:
        super().__init__()
        self.stride = stride
        self.k = k
        self.mlp = MLP([in_channels + dim + 1, channels, channels],
                       act='gelu', norm=None)

    def forward(self, data: Batch) -> tuple[Tensor, Tensor, Tensor]:
        fine = Level.of(data)
        coarse, index = fine.coarsen(self.stride)
        edge_index = fine.nearest(coarse, self.k)
        vector = fine.vectors(coarse, edge_index)
        # Not the length, which has no slope at a point itself.
        square = vector.square().sum(dim=1, keepdim=True)
        source, target = edge_index
        message = self.mlp(torch.cat([data.x[source], vector, square], 1))
        x = scatter(message, target, dim_size=len(index), reduce='mean')
        return x, index, coarse.batch


class PositionEmbedding(torch.nn.Module):
    r"""Sines and cosines of coordinates, of waves from two to two hundred
    units of length.
    """
    wave: Tensor

    def __init__(self, channels: int, dim: int, num_waves: int = 8) -> None:
        super().__init__()
        wave = math.pi * torch.logspace(0, -2, num_waves)
        self.register_buffer('wave', wave)
        self.lin = Linear(4 * dim * num_waves, channels)

    def forward(self, pos: Tensor) -> Tensor:
        angle = (pos.unsqueeze(2) * self.wave).flatten(1)
        return self.lin(torch.cat([angle.sin(), angle.cos()], dim=1))


class Block(torch.nn.Module):
    r"""Attention of tokens to others or to themselves, and an MLP."""
    def __init__(self, channels: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = LayerNorm(channels)
        self.lin_q = Linear(channels, channels)
        self.lin_kv = Linear(channels, 2 * channels)
        self.lin_out = Linear(channels, channels)
        self.norm2 = LayerNorm(channels)
        self.mlp = MLP([channels, mlp_ratio * channels, channels], act='gelu',
                       norm=None)

    def forward(self, x: Tensor, other: Tensor,
                mask: Tensor | None = None) -> Tensor:
        x = x + self._attend(self.norm1(x), self.norm1(other), mask)
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor, other: Tensor,
                mask: Tensor | None) -> Tensor:
        q, k, v = (
            out.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for out in (self.lin_q(x), *self.lin_kv(other).chunk(2, dim=2)))
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return self.lin_out(out.transpose(1, 2).flatten(2))
