import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear
from torch_geometric.data import Batch
from torch_geometric.utils import to_dense_batch

from benchmarks.experiments.nets.coordinates import coordinates
from benchmarks.experiments.nets.gps import differentiable_attention
from torch_geometric_erwin.nn.checks import check_heads


class FLARE(torch.nn.Module):
    r"""The network of the `"FLARE: Fast Low-rank Attention Routing Engine"
    <https://arxiv.org/abs/2508.12594>`_ paper: in each head, learned tokens
    look at all points of a cloud, and points look back at the tokens by the
    same keys, so that it is attention of a rank no higher than the number of
    tokens.

    Keys, values, feed-forward networks, input and output are deep residual
    MLPs, residual wherever a layer keeps the number of channels, and scores
    are not scaled, as in the authors' code. Other than there, the network
    sees positions from the center of their cloud, and those in a periodic box
    by their sines and cosines; linear layers are drawn as PyTorch does.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each hidden sample.
        out_channels (int): Size of each output sample.
        num_layers (int, optional): Number of blocks. (default: :obj:`8`)
        heads (int, optional): Number of attention heads.
            (default: :obj:`8`)
        num_latents (int, optional): Number of tokens of a head.
            (default: :obj:`32`)
        mlp_layers (int, optional): Number of layers of an MLP between its
            first and last: of keys, values and the feed-forward networks.
            Those of input and output have two. (default: :obj:`3`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 8,
        heads: int = 8,
        num_latents: int = 32,
        mlp_layers: int = 3,
        dim: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        inner = [hidden_channels] * 3
        self.encoder = ResidualMLP(2 * dim + in_channels, *inner,
                                   hidden_channels)
        self.blocks = torch.nn.ModuleList([
            FLAREBlock(hidden_channels, heads, num_latents, mlp_layers)
            for _ in range(num_layers)
        ])
        self.norm = LayerNorm(hidden_channels)
        self.decoder = ResidualMLP(hidden_channels, *inner, out_channels)

    def forward(self, data: Batch) -> Tensor:
        x = self.encoder(torch.cat([coordinates(data), data.x], dim=1))
        with differentiable_attention(data.pos.requires_grad):
            for block in self.blocks:
                x = block(x, data.batch, data.num_graphs)
        return self.decoder(self.norm(x))


class FLAREBlock(torch.nn.Module):
    def __init__(self, channels: int, heads: int, num_latents: int,
                 mlp_layers: int) -> None:
        super().__init__()
        layers = [channels] * (mlp_layers + 3)
        self.norm1 = LayerNorm(channels)
        self.attn = LatentAttention(heads, num_latents, layers)
        self.norm2 = LayerNorm(channels)
        self.mlp = ResidualMLP(*layers)

    def forward(self, x: Tensor, batch: Tensor, num_clouds: int) -> Tensor:
        x = x + self.attn(self.norm1(x), batch, num_clouds)
        return x + self.mlp(self.norm2(x))


class LatentAttention(torch.nn.Module):
    r"""Attention from points to tokens and back, in time linear in their
    number.
    """
    def __init__(self, heads: int, num_latents: int,
                 layers: list[int]) -> None:
        super().__init__()
        channels = layers[0]
        check_heads(channels, heads)
        self.latents = torch.nn.Parameter(
            0.1 * torch.randn(heads, num_latents, channels // heads))
        self.key_nn = ResidualMLP(*layers)
        self.value_nn = ResidualMLP(*layers)
        self.lin_out = Linear(channels, channels)

    def forward(self, x: Tensor, batch: Tensor, num_clouds: int) -> Tensor:
        both = torch.stack([self.key_nn(x), self.value_nn(x)], dim=1)
        both, mask = to_dense_batch(both, batch, batch_size=num_clouds)
        key, value = both.unflatten(3, (len(self.latents), -1)).permute(
            2, 0, 3, 1, 4)
        query = self.latents.to(key.dtype).expand(num_clouds, -1, -1, -1)
        tokens = F.scaled_dot_product_attention(
            query, key, value, mask[:, None, None], scale=1.)
        out = F.scaled_dot_product_attention(key, query, tokens, scale=1.)
        return self.lin_out(out.transpose(1, 2).flatten(2)[mask])


class ResidualMLP(torch.nn.Module):
    r"""Linear layers with GELUs in between, each of them residual if it keeps
    the number of channels.
    """
    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.lins = torch.nn.ModuleList(
            map(Linear, channels[:-1], channels[1:]))

    def forward(self, x: Tensor) -> Tensor:
        for i, lin in enumerate(self.lins, 1):
            out = lin(x)
            if i < len(self.lins):
                out = F.gelu(out, approximate='tanh')
            x = x + out if x.shape == out.shape else out
        return x
