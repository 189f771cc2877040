import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear
from torch_geometric.data import Batch
from torch_geometric.nn import MLP
from torch_geometric.utils import scatter

from benchmarks.experiments.nets.curves import curve_orders
from benchmarks.experiments.nets.gps import differentiable_attention
from benchmarks.experiments.nets.graph import (
    neighbor_graph,
    relative_positions,
)
from benchmarks.experiments.nets.patches import Patches


class PointTransformerV3(torch.nn.Module):
    r"""Blocks of the `"Point Transformer V3: Simpler, Faster, Stronger"
    <https://arxiv.org/abs/2312.10035>`_ paper: attention in patches of points
    that follow each other along a space-filling curve, another one in each
    block.

    What the paper does by sparse convolutions on a grid, to tell attention
    where points are, is done by continuous ones, one channel at a time, on
    the nearest neighbors. All blocks are on one level: nothing is pooled.
    Patches of a cloud are as equal in size as can be, and not filled up with
    points of others.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int, optional): Number of blocks. (default: :obj:`4`)
        heads (int, optional): Number of attention heads.
            (default: :obj:`4`)
        patch_size (int, optional): The largest number of points of a patch.
            (default: :obj:`128`)
        mlp_ratio (int, optional): Hidden size of the feed-forward networks,
            in units of their input. (default: :obj:`4`)
        k (int, optional): Number of neighbors, the point itself included.
            (default: :obj:`16`)
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
        patch_size: int = 128,
        mlp_ratio: int = 4,
        k: int = 16,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.patch_size = patch_size
        self.k = k
        self.lin_in = Linear(in_channels, hidden_channels)
        self.convs = torch.nn.ModuleList(
            PositionConv(hidden_channels, dim) for _ in range(num_layers))
        self.blocks = torch.nn.ModuleList(
            PatchBlock(hidden_channels, heads, mlp_ratio)
            for _ in range(num_layers))
        self.norm = LayerNorm(hidden_channels)
        self.lin_out = Linear(hidden_channels, out_channels)

    def forward(self, data: Batch) -> Tensor:
        edge_index = neighbor_graph(data, self.k, loop=True)
        vector = relative_positions(data, edge_index)
        turns = [Patches.of(order, data.batch, data.num_graphs,
                            self.patch_size) for order in curve_orders(data)]
        x = self.lin_in(data.x)
        with differentiable_attention(data.pos.requires_grad):
            for i, (conv, block) in enumerate(zip(self.convs, self.blocks,
                                                  strict=True)):
                x = block(conv(x, vector, edge_index), turns[i % len(turns)])
        return self.lin_out(self.norm(x))


class PositionConv(torch.nn.Module):
    r"""Adds means of neighbors, weighted by where they are."""
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.weight_nn = MLP([dim, 32, channels], act='gelu', norm=None)
        self.lin = Linear(channels, channels)
        self.norm = LayerNorm(channels)

    def forward(self, x: Tensor, vector: Tensor,
                edge_index: Tensor) -> Tensor:
        source, target = edge_index
        out = scatter(self.weight_nn(vector) * x[source], target,
                      dim_size=len(x), reduce='mean')
        return x + self.norm(self.lin(out))


class PatchBlock(torch.nn.Module):
    def __init__(self, channels: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = LayerNorm(channels)
        self.lin_qkv = Linear(channels, 3 * channels)
        self.lin_out = Linear(channels, channels)
        self.norm2 = LayerNorm(channels)
        self.mlp = MLP([channels, mlp_ratio * channels, channels], act='gelu',
                       norm=None)

    def forward(self, x: Tensor, patches: Patches) -> Tensor:
        x = x + self.lin_out(self._attend(self.norm1(x), patches))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor, patches: Patches) -> Tensor:
        qkv = self.lin_qkv(x)[patches.points]
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if patches.mask.all() else patches.mask[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)[patches.slot]
