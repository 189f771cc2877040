import torch
from torch import Tensor
from torch.nn import GELU, LayerNorm, Linear
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.checks import (
    check_choice,
    check_edge_index,
    check_edge_shift,
    check_input,
    check_positive,
)
from torch_geometric_erwin.nn.conv.bessel_basis import BesselBasis
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.ops.distance import length
from torch_geometric_erwin.tree import BallTree


class MPNNConv(NotScriptable, MessagePassing):
    r"""One step of the message passing that embeds points in the `"Erwin: A
    Tree-based Hierarchical Transformer for Large-scale Physical Systems"
    <https://arxiv.org/abs/2502.17019>`_ paper (equation 14), after `"Neural
    Message Passing for Quantum Chemistry"
    <https://arxiv.org/abs/1704.01212>`_:

    .. math::
        \mathbf{m}_{ij} &= \textrm{MLP}_e(\mathbf{x}_i, \mathbf{x}_j,
        \mathbf{e}_{ij})

        \mathbf{x}^{\prime}_i &= \mathbf{x}_i + \textrm{MLP}_h \Big(
        \mathbf{x}_i, \frac{1}{|\mathcal{N}(i)|} \sum_{j \in \mathcal{N}(i)}
        \mathbf{m}_{ij} \Big)

    with the relative position :math:`\mathbf{e}_{ij} = \mathbf{p}_j -
    \mathbf{p}_i` (in a periodic cell that of the nearest image, or of that
    which :obj:`edge_shift` tells), or with a
    Bessel basis of its length, which does not depend on the orientation in
    space.

    Args:
        channels (int): Size of each input and output sample.
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        basis (str, optional): What to tell messages of positions:
            :obj:`"position"` or :obj:`"bessel"`.
            (default: :obj:`"position"`)
        num_basis (int, optional): Number of Bessel functions.
            (default: :obj:`8`)
        cutoff (float, optional): The distance at which Bessel functions
            vanish, in the units of the positions; needed for these.
            (default: :obj:`None`)

    Shapes:
        - **input:**
          point features :math:`(N, C)`, edge indices :math:`(2, E)`, a tree
          of :math:`N` points
        - **output:** point features :math:`(N, C)`
    """
    def __init__(
        self,
        channels: int,
        *,
        dim: int = 3,
        basis: str = 'position',
        num_basis: int = 8,
        cutoff: float | None = None,
    ) -> None:
        super().__init__(aggr='mean')
        check_positive('channels', channels)
        check_positive('dim', dim)
        check_choice('basis', basis, ('position', 'bessel'))
        self.channels = channels
        self.dim = dim

        self.basis = None
        if basis == 'bessel':
            self.basis = BesselBasis(num_basis, cutoff)
        width = dim if basis == 'position' else num_basis
        # MLP_e's first layer, one summand for each part of its input: those
        # of points are computed once per point and not once per edge.
        self.lin_src = Linear(channels, channels)
        self.lin_dst = Linear(channels, channels, bias=False)
        self.lin_edge = Linear(width, channels, bias=False)
        self.act = GELU()
        self.norm_message = LayerNorm(channels)
        self.lin_update = Linear(2 * channels, channels)
        self.norm_update = LayerNorm(channels)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in (self.lin_src, self.lin_dst, self.lin_edge,
                    self.lin_update):
            torch.nn.init.trunc_normal_(lin.weight, std=0.02)
            if lin.bias is not None:
                torch.nn.init.zeros_(lin.bias)
        self.norm_message.reset_parameters()
        self.norm_update.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, tree: BallTree,
                edge_shift: OptTensor = None) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
            edge_index (torch.Tensor): Who tells whom.
            tree (BallTree): The points' ball tree, which knows where they
                are.
            edge_shift (torch.Tensor, optional): In a periodic cell, how many
                of its vectors lead from sources to their images, of shape
                :math:`(E, D)`. (default: :obj:`None`, the nearest images)

        Raises:
            ValueError: If features and tree do not fit each other or the
                layer.
        """
        check_input(x, tree, self.channels, self.dim)
        check_edge_index(edge_index)
        check_edge_shift(edge_shift, edge_index, self.dim)
        edge = tree.edge_vectors(edge_index, edge_shift)
        if self.basis is not None:
            edge = self.basis(length(edge))

        # propagate_type: (src: Tensor, dst: Tensor, edge: Tensor)
        out = self.propagate(edge_index, src=self.lin_src(x),
                             dst=self.lin_dst(x), edge=edge)
        out = self.lin_update(torch.cat([x, out.to(x.dtype)], dim=-1))
        return x + self.norm_update(out)

    def message(self, src_j: Tensor, dst_i: Tensor, edge: Tensor) -> Tensor:
        out = src_j + dst_i + self.lin_edge(edge.to(src_j.dtype))
        return self.norm_message(self.act(out))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.channels}, dim={self.dim})'
