import torch
from torch import Tensor
from torch.nn import RMSNorm
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.attention import EquivariantBallAttention
from torch_geometric_erwin.nn.checks import check_input
from torch_geometric_erwin.nn.conv.equivariant_swiglu import EquivariantSwiGLU
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.nn.vectors import check_vectors, unit_rms
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
        check_input(x, tree, self.attn.channels, self.attn.dim)
        vec = check_vectors(vec, x, self.attn.dim)
        dx, dvec = self.attn(self.norm(x), unit_rms(vec), tree, partition,
                             offset=offset)
        return self.mlp(x + dx, vec + dvec)
