from typing import Any

import torch
from torch import Tensor
from torch.nn import GELU, LayerNorm, Linear
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.checks import (
    check_choice,
    check_input,
    check_positive,
)
from torch_geometric_erwin.nn.conv.bessel_basis import BesselBasis
from torch_geometric_erwin.nn.conv.messages import (
    FUSED,
    add_edge_attr,
    check_aggr,
    find_edges,
    is_fused,
)
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.ops.distance import length
from torch_geometric_erwin.ops.message_passing import message_passing
from torch_geometric_erwin.tree import BallTree, TreeEdges


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
    space, and with features of the edge, if there are any.

    Messages by the mean or the sum are made, added up and differentiated by a
    kernel in float32, bfloat16 and float16, which stores none of them. Edge by
    edge, with the same result, they are made in float64, by other
    aggregations, where second derivatives are asked for, and where somebody
    would notice: for hooks, explainers and classes with a ``message`` of
    their own.

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
        edge_dim (int, optional): Size of each edge's features.
            (default: :obj:`None`, there are none)
        aggr (str or torch_geometric.nn.aggr.Aggregation, optional): How to
            aggregate messages, to as many channels. (default: :obj:`"mean"`)

    Shapes:
        - **input:**
          point features :math:`(N, C)`, or of sources and targets
          :math:`((N_{src}, C), (N_{dst}, C))`, edge indices :math:`(2, E)`, a
          tree of :math:`N` points, or two, edge features :math:`(E, F_{edge})`
          *(optional)*
        - **output:** point features :math:`(N, C)`, or :math:`(N_{dst}, C)`
    """
    def __init__(
        self,
        channels: int,
        *,
        dim: int = 3,
        basis: str = 'position',
        num_basis: int = 8,
        cutoff: float | None = None,
        edge_dim: int | None = None,
        aggr: str | Aggregation = 'mean',
    ) -> None:
        check_aggr(aggr)
        super().__init__(aggr=aggr)
        check_positive('channels', channels)
        check_positive('dim', dim)
        check_choice('basis', basis, ('position', 'bessel'))
        if edge_dim is not None:
            check_positive('edge_dim', edge_dim)
        self.channels = channels
        self.dim = dim
        self.edge_dim = edge_dim

        self.basis = None
        if basis == 'bessel':
            self.basis = BesselBasis(num_basis, cutoff)
        width = (edge_dim or 0) + (
            dim if basis == 'position' else num_basis)
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

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | TreeEdges,
        tree: BallTree | tuple[BallTree, BallTree],
        edge_shift: OptTensor = None,
        edge_attr: OptTensor = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor or (torch.Tensor, torch.Tensor)): The features of
                the points, or of sources and targets.
            edge_index (torch.Tensor or TreeEdges): Who tells whom, or what
                :meth:`~torch_geometric_erwin.BallTree.edges` returns, which
                layers can share.
            tree (BallTree or (BallTree, BallTree)): The points' ball tree,
                which knows where they are, or those of sources and targets.
            edge_shift (torch.Tensor, optional): In a periodic cell, how many
                of its vectors lead from sources to their images, of shape
                :math:`(E, D)`. (default: :obj:`None`, the nearest images)
            edge_attr (torch.Tensor, optional): The features of the edges.
                (default: :obj:`None`)
            size ((int, int), optional): How many sources and targets there
                are, if that is to be checked. (default: :obj:`None`)

        Raises:
            ValueError: If features, edges and trees do not fit each other or
                the layer.
        """
        x_src, x_dst, sources, targets = self._ends(x, tree, size)
        other = None if sources is targets else sources
        edges = find_edges(edge_index, edge_shift, targets, self.dim,
                           other)
        src, dst = self.lin_src(x_src), self.lin_dst(x_dst)
        edge = self._edge_features(edges.vectors, edge_attr, src.dtype)

        if is_fused(self, MPNNConv):
            out = message_passing(
                src, dst, edge, self.lin_edge.weight, self.norm_message.weight,
                self.norm_message.bias, edges.edge_index, lists=edges.lists,
                aggr=FUSED[type(self.aggr_module)],
                eps=self.norm_message.eps)
        else:
            # propagate_type: (src: Tensor, dst: Tensor, edge: Tensor)
            out = self.propagate(edges.edge_index, src=src, dst=dst,
                                 edge=edge, size=(src.size(0), dst.size(0)))
        out = self.lin_update(torch.cat([x_dst, out.to(x_dst.dtype)], dim=-1))
        return x_dst + self.norm_update(out)

    def _ends(self, x: Any, tree: Any, size: tuple[int, int] | None,
              ) -> tuple[Tensor, Tensor, BallTree, BallTree]:
        r"""Returns features and trees of sources and of targets."""
        pairs = [isinstance(arg, tuple | list) for arg in (x, tree)]
        if not any(pairs):
            check_input(x, tree, self.channels, self.dim)
            ends = x, x, tree, tree
        elif not all(pairs) or len(x) != 2 or len(tree) != 2:
            raise ValueError("Expected both 'x' and 'tree' to be pairs, of "
                             "sources and targets, or neither (got 'x': "
                             f"{type(x).__name__}, 'tree': "
                             f"{type(tree).__name__})")
        else:
            for i in range(2):
                check_input(x[i], tree[i], self.channels, self.dim, f'x[{i}]',
                            f'tree[{i}]')
            ends = *x, *tree
        found = ends[0].size(0), ends[1].size(0)
        if size is not None and tuple(size) != found:
            raise ValueError(f"Expected 'size' to be the number of sources "
                             f"and targets, {found} (got {tuple(size)})")
        return ends

    def _edge_features(self, vector: Tensor, edge_attr: Any,
                       dtype: torch.dtype) -> Tensor:
        edge = vector if self.basis is None else self.basis(length(vector))
        edge = edge.to(dtype)
        return add_edge_attr(edge, edge_attr, self.edge_dim)

    def message(self, src_j: Tensor, dst_i: Tensor, edge: Tensor) -> Tensor:
        out = src_j + dst_i + self.lin_edge(edge.to(src_j.dtype))
        return self.norm_message(self.act(out))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.channels}, dim={self.dim})'
