import torch
from torch import Tensor
from torch.nn import LayerNorm, Linear, MultiheadAttention
from torch_geometric.data import Batch
from torch_geometric.nn import MLP
from torch_geometric.utils import scatter, to_dense_batch

from benchmarks.experiments.nets.coordinates import coordinates
from benchmarks.experiments.nets.gps import differentiable_attention
from benchmarks.experiments.nets.patches import Patches, plain_tree
from torch_geometric_erwin.nn.checks import check_heads


class MSPT(torch.nn.Module):
    r"""The network of the `"MSPT: Efficient Large-Scale Physical Modeling via
    Parallelized Multi-Scale Attention" <https://arxiv.org/abs/2512.01738>`_
    paper: attention within the balls of a tree, whose points look at one
    token for each ball of their cloud, too, in the same softmax.

    Blocks are those of the authors' code: tokens, means of their balls plus
    what the last block made of them, are queries, too, in each ball anew,
    and the mean over balls is handed on; feed-forward networks follow, one
    on points and tokens, one on points. There is one token per ball
    (:math:`Q = 1`), and no dropout.

    Other than there, balls are of a given size, not of a given number, so
    that there are more of them in larger clouds; they are filled evenly, and
    where they are not full, nothing fills them up. The network sees positions
    from the center of their cloud; those in a periodic box by their sines and
    cosines. Weights are drawn as PyTorch does.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int, optional): Number of blocks. (default: :obj:`5`)
        heads (int, optional): Number of attention heads.
            (default: :obj:`8`)
        ball_size (int, optional): The largest number of points of a ball, a
            power of two. (default: :obj:`128`)
        mlp_ratio (int, optional): Hidden size of the feed-forward networks
            on points, in units of their input. (default: :obj:`1`)
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
        ball_size: int = 128,
        mlp_ratio: int = 1,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.ball_size = ball_size
        channels = hidden_channels
        self.encoder = mlp(2 * dim + in_channels, 2 * channels, channels)
        self.bias = torch.nn.Parameter(torch.rand(channels) / channels)
        self.blocks = torch.nn.ModuleList([
            MSPTBlock(channels, heads, mlp_ratio) for _ in range(num_layers)
        ])
        self.norm = LayerNorm(channels)
        self.lin = Linear(channels, out_channels)

    def forward(self, data: Batch) -> Tensor:
        patches = Patches.balls(plain_tree(data, self.ball_size))
        x = torch.cat([coordinates(data), data.x], dim=1)
        x = self.encoder(x) + self.bias
        cloud = patches.per_patch(data.batch)
        tokens, there = to_dense_batch(x.new_zeros(len(cloud), x.size(1)),
                                       cloud, batch_size=data.num_graphs)
        with differentiable_attention(data.pos.requires_grad):
            for block in self.blocks:
                x, tokens = block(x, tokens, there, patches, cloud)
        return self.lin(self.norm(x))


class MSPTBlock(torch.nn.Module):
    def __init__(self, channels: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = MultiscaleAttention(channels, heads)
        self.norm2 = LayerNorm(channels)
        self.mlp = mlp(channels, mlp_ratio * channels, channels)

    def forward(self, x: Tensor, tokens: Tensor,
                *layout: Tensor | Patches) -> tuple[Tensor, Tensor]:
        out, tokens = self.attn(self.norm1(x), tokens, *layout)
        x = x + out
        return x + self.mlp(self.norm2(x)), tokens


class MultiscaleAttention(torch.nn.Module):
    r"""Attention within each patch and to the tokens of all patches of its
    cloud, shape :math:`(B, V, C)`, where they are there.
    """
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.attn = MultiheadAttention(channels, heads, batch_first=True)
        self.norm = LayerNorm(channels)
        self.mlp = mlp(channels, 4 * channels, channels)

    def forward(self, x: Tensor, tokens: Tensor, there: Tensor,
                patches: Patches, cloud: Tensor) -> tuple[Tensor, Tensor]:
        pooled, _ = to_dense_batch(patches.mean(x), cloud,
                                   batch_size=len(tokens))
        tokens = (tokens + pooled)[cloud]
        size = [patches.points.size(1), tokens.size(1)]
        both = torch.cat([x[patches.points], tokens], dim=1)
        empty = ~torch.cat([patches.mask, there[cloud]], dim=1)
        x, tokens = self._transform(both, empty).split(size, dim=1)
        tokens = scatter(tokens, cloud, dim_size=len(there), reduce='mean')
        return x.flatten(0, 1)[patches.slot], tokens

    def _transform(self, x: Tensor, empty: Tensor) -> Tensor:
        # One norm serves twice, as in the authors' code.
        out = self.norm(x)
        x = x + self.attn(out, out, out, key_padding_mask=empty,
                          need_weights=False)[0]
        return x + self.mlp(self.norm(x))


def mlp(*channels: int) -> MLP:
    return MLP(list(channels), act='gelu', norm=None)
