import torch
from torch import Tensor
from torch.nn import Linear, RMSNorm

from torch_geometric_erwin.nn.attention import BallAttention
from torch_geometric_erwin.nn.attention.in_balls import balls_of
from torch_geometric_erwin.nn.checks import check_input, check_partition
from torch_geometric_erwin.nn.conv.swiglu import SwiGLU
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.nn.untouched import has_global_hooks, is_untouched
from torch_geometric_erwin.ops.erwin_block import BlockWeights, erwin_block
from torch_geometric_erwin.tree import BallTree


class ErwinBlock(NotScriptable, torch.nn.Module):
    r"""The block of the `"Erwin: A Tree-based Hierarchical Transformer for
    Large-scale Physical Systems" <https://arxiv.org/abs/2502.17019>`_ paper:

    .. math::
        \mathbf{h} &= \mathbf{x} + \textrm{BallAttention}(
        \textrm{RMSNorm}(\mathbf{x}))

        \mathbf{x}^{\prime} &= \mathbf{h} + \textrm{SwiGLU}(
        \textrm{RMSNorm}(\mathbf{h}))

    Args:
        channels (int): Size of each input and output sample.
        heads (int, optional): Number of attention heads; divides
            :obj:`channels`. (default: :obj:`1`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        mlp_ratio (int, optional): Hidden size of the feed-forward network,
            in units of :obj:`channels`. (default: :obj:`4`)
        bias (str, optional): See
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`"distance"`)
        signed (bool, optional): See
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`False`)
        dropout (float, optional): Dropout probability of attention weights
            and of the feed-forward network's hidden samples.
            (default: :obj:`0.`)

    Shapes:
        - **input:**
          point features :math:`(N, C)`, a tree of :math:`N` points
        - **output:** point features :math:`(N, C)`
    """
    def __init__(
        self,
        channels: int,
        heads: int = 1,
        *,
        dim: int = 3,
        mlp_ratio: int = 4,
        bias: str | None = 'distance',
        signed: bool = False,
        dropout: float = 0.,
    ) -> None:
        super().__init__()
        self.norm1 = RMSNorm(channels)
        self.attn = BallAttention(channels, heads, dim=dim, bias=bias,
                                  signed=signed, dropout=dropout)
        self.norm2 = RMSNorm(channels)
        self.mlp = SwiGLU(channels, mlp_ratio * channels, dropout)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for module in (self.norm1, self.attn, self.norm2, self.mlp):
            module.reset_parameters()

    def forward(self, x: Tensor, tree: BallTree, partition: int = 0,
                offset: Tensor | None = None) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
            tree (BallTree): Their ball tree.
            partition (int, optional): Which of the tree's orientations to
                attend in. (default: :obj:`0`)
            offset (torch.Tensor, optional): What
                :obj:`tree.offsets(partition)` returns, if it is at hand.
                (default: :obj:`None`)
        """
        if tree.virtual == 'copy' or not self._is_fused():
            x = x + self.attn(self.norm1(x), tree, partition, offset=offset)
            return x + self.mlp(self.norm2(x))
        check_input(x, tree, self.attn.channels, self.attn.dim)
        check_partition(tree, partition)
        if offset is None:
            offset = tree.offsets(partition)
        return erwin_block(x, offset.to(x.dtype), tree.pos, self._weights(),
                           balls_of(tree, partition), self.attn.heads,
                           eps=(self.norm1.eps, self.norm2.eps),
                           bias=self.attn.bias)

    def _is_fused(self) -> bool:
        r"""Whether nobody can tell if modules are called one by one."""
        attn, mlp = self.attn, self.mlp
        if attn.is_watched() or has_global_hooks():
            return False
        if any(module.training and module.dropout > 0
               for module in (attn, mlp)):
            return False
        linear = (attn.lin_pos, attn.lin_qkv, attn.lin_out, mlp.lin_in,
                  mlp.lin_out)
        return (is_untouched(attn, BallAttention) and is_untouched(mlp, SwiGLU)
                and is_untouched(self.norm1, RMSNorm)
                and is_untouched(self.norm2, RMSNorm)
                and all(is_untouched(lin, Linear) for lin in linear))

    def _weights(self) -> BlockWeights:
        attn, mlp = self.attn, self.mlp
        return BlockWeights(
            self.norm1.weight, attn.lin_pos.weight, attn.lin_pos.bias,
            attn.lin_qkv.weight, attn.lin_qkv.bias, attn.lin_out.weight,
            attn.lin_out.bias, self.norm2.weight, mlp.lin_in.weight,
            mlp.lin_in.bias, mlp.lin_out.weight, mlp.lin_out.bias,
            attn.slope())
