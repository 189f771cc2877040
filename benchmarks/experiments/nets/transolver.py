import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear
from torch_geometric.data import Batch
from torch_geometric.nn import MLP

from benchmarks.experiments.nets.coordinates import coordinates
from benchmarks.experiments.nets.gps import differentiable_attention


class Transolver(torch.nn.Module):
    r"""The network of the `"Transolver: A Fast Transformer Solver for PDEs on
    General Geometries" <https://arxiv.org/abs/2402.02366>`_ paper: attention
    among a few tokens of each cloud, each of them a mean of points that the
    network has taken for alike.

    It sees positions from the center of their cloud; those in a periodic box
    by their sines and cosines. It knows no neighbors.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int, optional): Number of blocks. (default: :obj:`5`)
        heads (int, optional): Number of attention heads.
            (default: :obj:`8`)
        num_slices (int, optional): Number of tokens of a head.
            (default: :obj:`32`)
        mlp_ratio (int, optional): Hidden size of the feed-forward networks,
            in units of their input. (default: :obj:`1`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 5,
        heads: int = 8,
        num_slices: int = 32,
        mlp_ratio: int = 1,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        channels = hidden_channels
        self.encoder = mlp(2 * dim + in_channels, 2 * channels, channels)
        self.bias = torch.nn.Parameter(torch.rand(channels) / channels)
        self.blocks = torch.nn.ModuleList([
            TransolverBlock(channels, heads, num_slices, mlp_ratio)
            for _ in range(num_layers)
        ])
        self.norm = LayerNorm(channels)
        self.lin = Linear(channels, out_channels)

    def forward(self, data: Batch) -> Tensor:
        sizes = data.ptr.diff().tolist()
        x = torch.cat([coordinates(data), data.x], dim=1)
        x = self.encoder(x) + self.bias
        with differentiable_attention(data.pos.requires_grad):
            for block in self.blocks:
                x = block(x, sizes)
        return self.lin(self.norm(x))


class TransolverBlock(torch.nn.Module):
    def __init__(self, channels: int, heads: int, num_slices: int,
                 mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = PhysicsAttention(channels, heads, num_slices)
        self.norm2 = LayerNorm(channels)
        self.mlp = mlp(channels, mlp_ratio * channels, channels)

    def forward(self, x: Tensor, sizes: list[int]) -> Tensor:
        x = x + self.attn(self.norm1(x), sizes)
        return x + self.mlp(self.norm2(x))


class PhysicsAttention(torch.nn.Module):
    r"""Attention among weighted means of points, all of which are handed what
    comes out by the same weights, in time linear in their number.
    """
    def __init__(self, channels: int, heads: int, num_slices: int) -> None:
        super().__init__()
        self.heads = heads
        size = channels // heads
        self.temperature = torch.nn.Parameter(torch.full((heads, 1), 0.5))
        self.lin_key = Linear(channels, channels)
        self.lin_value = Linear(channels, channels)
        self.lin_slice = Linear(size, num_slices)
        torch.nn.init.orthogonal_(self.lin_slice.weight)
        self.lin_qkv = Linear(size, 3 * size, bias=False)
        self.lin_out = Linear(channels, channels)

    def forward(self, x: Tensor, sizes: list[int]) -> Tensor:
        key = self.lin_key(x).unflatten(1, (self.heads, -1))
        value = self.lin_value(x).unflatten(1, (self.heads, -1))
        weight = (self.lin_slice(key) / self.temperature).softmax(dim=2)
        # Clouds of any sizes, one after the other: nothing is padded.
        clouds = zip(weight.split(sizes), value.split(sizes), strict=True)
        out = torch.cat([self._attend(*cloud) for cloud in clouds])
        return self.lin_out(out.flatten(1))

    def _attend(self, weight: Tensor, value: Tensor) -> Tensor:
        weight, value = weight.transpose(0, 1), value.transpose(0, 1)
        total = weight.sum(dim=1).unsqueeze(2) + 1e-5
        tokens = weight.transpose(1, 2) @ value / total
        tokens = F.scaled_dot_product_attention(
            *self.lin_qkv(tokens).chunk(3, dim=2))
        return (weight @ tokens).transpose(0, 1)


def mlp(*channels: int) -> MLP:
    return MLP(list(channels), act='gelu', norm=None)
