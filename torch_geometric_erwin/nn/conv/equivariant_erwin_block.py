import torch
from torch import Tensor
from torch.nn import Linear, RMSNorm
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.attention import EquivariantBallAttention
from torch_geometric_erwin.nn.attention.in_balls import balls_of
from torch_geometric_erwin.nn.checks import check_input, check_partition
from torch_geometric_erwin.nn.conv.equivariant_swiglu import EquivariantSwiGLU
from torch_geometric_erwin.nn.conv.swiglu import SwiGLU
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.nn.untouched import has_global_hooks, is_untouched
from torch_geometric_erwin.nn.vectors import check_vectors
from torch_geometric_erwin.ops.distance import length
from torch_geometric_erwin.ops.equivariant_block import (
    BlockWeights,
    equivariant_block,
)
from torch_geometric_erwin.ops.vectors import unit_rms
from torch_geometric_erwin.tree import BallTree


class EquivariantErwinBlock(NotScriptable, torch.nn.Module):
    r"""The block of :class:`~torch_geometric_erwin.nn.EquivariantErwinConv`,
    on scalars and vectors:

    .. math::
        (\mathbf{x}, \vec{\mathbf{v}}) &\leftarrow (\mathbf{x},
        \vec{\mathbf{v}}) + \textrm{EquivariantBallAttention}(
        \textrm{RMSNorm}(\mathbf{x}), \textrm{Norm}(\vec{\mathbf{v}}))

        (\mathbf{x}, \vec{\mathbf{v}}) &\leftarrow
        \textrm{EquivariantSwiGLU}(\mathbf{x}, \vec{\mathbf{v}})

    where :math:`\textrm{Norm}` divides by the root mean square of all of a
    point's numbers.

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
          scalars :math:`(N, C)`, vectors :math:`(N, D, C)`, a tree of
          :math:`N` points
        - **output:** scalars :math:`(N, C)`, vectors :math:`(N, D, C)`
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
        self.norm = RMSNorm(channels)
        self.attn = EquivariantBallAttention(channels, heads, dim=dim,
                                             bias=bias, signed=signed,
                                             dropout=dropout)
        self.mlp = EquivariantSwiGLU(channels, mlp_ratio * channels, dropout)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for module in (self.norm, self.attn, self.mlp):
            module.reset_parameters()

    def forward(
        self,
        x: Tensor,
        vec: OptTensor,
        tree: BallTree,
        partition: int = 0,
        offset: OptTensor = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The scalars of the points.
            vec (torch.Tensor, optional): Their vectors; :obj:`None` for
                zeros.
            tree (BallTree): Their ball tree.
            partition (int, optional): Which of the tree's orientations to
                attend in. (default: :obj:`0`)
            offset (torch.Tensor, optional): What
                :obj:`tree.offsets(partition)` returns, if it is at hand.
                (default: :obj:`None`)

        Raises:
            ValueError: If features and tree do not fit each other or the
                layer.
        """
        attn = self.attn
        check_input(x, tree, attn.channels, attn.dim)
        check_partition(tree, partition)
        vec = check_vectors(vec, x, attn.dim)
        if tree.virtual == 'copy' or not self._is_fused():
            dx, dvec = attn(self.norm(x), unit_rms(vec), tree, partition,
                            offset=offset)
            return self.mlp(x + dx, vec + dvec)
        if offset is None:
            offset = tree.offsets(partition)
        far = length(offset).unsqueeze(1).to(x.dtype)
        return equivariant_block(
            x, vec, far, offset.to(x.dtype), tree.pos, self._weights(),
            balls_of(tree, partition), bias=attn.bias,
            eps=(self.norm.eps, self.mlp.norm.eps))

    def _is_fused(self) -> bool:
        r"""Whether nobody can tell if modules are called one by one."""
        attn, mlp = self.attn, self.mlp
        if attn.is_watched() or has_global_hooks():
            return False
        if any(module.training and module.dropout > 0
               for module in (attn, mlp.mlp)):
            return False
        kinds: dict[type, list[torch.nn.Module]] = {
            EquivariantBallAttention: [attn],
            EquivariantSwiGLU: [mlp],
            SwiGLU: [mlp.mlp],
            RMSNorm: [self.norm, mlp.norm],
            Linear: [attn.lin_pos, attn.lin_qkv, attn.lin_vec, attn.lin_out,
                     attn.lin_vec_out, mlp.lin_vec, mlp.lin_norms,
                     mlp.mlp.lin_in, mlp.mlp.lin_out, mlp.lin_gate,
                     mlp.lin_vec_out],
        }
        return all(is_untouched(module, kind)
                   for kind, modules in kinds.items() for module in modules)

    def _weights(self) -> BlockWeights:
        attn, mlp, glu = self.attn, self.mlp, self.mlp.mlp
        return BlockWeights(
            self.norm.weight, attn.lin_pos.weight, attn.lin_pos.bias,
            attn.lin_qkv.weight, attn.lin_qkv.bias, attn.lin_vec.weight,
            attn.pos_weight, attn.lin_out.weight, attn.lin_out.bias,
            attn.lin_vec_out.weight, mlp.lin_vec.weight, mlp.lin_norms.weight,
            mlp.norm.weight, glu.lin_in.weight, glu.lin_in.bias,
            glu.lin_out.weight, glu.lin_out.bias, mlp.lin_gate.weight,
            mlp.lin_gate.bias, mlp.lin_vec_out.weight, attn.slope())
