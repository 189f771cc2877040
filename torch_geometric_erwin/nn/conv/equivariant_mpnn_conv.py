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
from torch_geometric_erwin.nn.vectors import check_vectors, reset_linear
from torch_geometric_erwin.ops.distance import length
from torch_geometric_erwin.ops.equivariant_messages import (
    equivariant_messages,
    reference,
)
from torch_geometric_erwin.ops.vectors import inner, norms, unit_rms
from torch_geometric_erwin.tree import BallTree, TreeEdges


class EquivariantMPNNConv(NotScriptable, MessagePassing):
    r"""One step of message passing on scalars :math:`\mathbf{x}` and vectors
    :math:`\vec{\mathbf{v}}`, which turn along when positions are turned or
    mirrored: what :class:`~torch_geometric_erwin.nn.MPNNConv` is to scalars.
    With the direction :math:`\hat{\mathbf{u}}_{ij}` of :math:`\mathbf{p}_j -
    \mathbf{p}_i` and :math:`\vec{\mathbf{w}} = \mathbf{U}
    \vec{\mathbf{v}}`,

    .. math::
        \mathbf{m}_{ij} &= \textrm{LayerNorm} \big( \textrm{GELU}(
        \mathbf{A} \mathbf{x}_i + \mathbf{B} \mathbf{x}_j + \mathbf{W}
        \mathbf{e}_{ij} + \hat{\mathbf{u}}_{ij} \cdot \vec{\mathbf{w}}_j )
        \big)

        \vec{\mathbf{t}}_i &= \frac{1}{|\mathcal{N}(i)|} \sum_{j \in
        \mathcal{N}(i)} \big( \mathbf{U}_1 (\mathbf{m}_{ij}
        \hat{\mathbf{u}}_{ij}) + \mathbf{U}_2 (\mathbf{m}_{ij} \odot
        \vec{\mathbf{w}}_j) \big)

        \mathbf{h}_i, \mathbf{g}_i &= \mathbf{W}_h \Big[ \mathbf{x}_i,
        \frac{1}{|\mathcal{N}(i)|} \sum_{j \in \mathcal{N}(i)}
        \mathbf{m}_{ij}, \| \vec{\mathbf{t}}_i \|, \vec{\mathbf{t}}_i \cdot
        \textrm{RMSNorm}(\vec{\mathbf{w}}_i) \Big]

        \mathbf{x}^{\prime}_i &= \mathbf{x}_i + \textrm{LayerNorm}(
        \mathbf{h}_i), \qquad \vec{\mathbf{v}}^{\prime}_i =
        \vec{\mathbf{v}}_i + (1 + \textrm{LayerNorm}(\mathbf{g}_i)) \odot
        \vec{\mathbf{t}}_i

    with the distance :math:`\mathbf{e}_{ij}`, or a Bessel basis of it, and
    with features of the edge, if there are any. Directions and vectors meet
    messages as in the `"Equivariant Message Passing for the Prediction of
    Tensorial Properties and Molecular Spectra"
    <https://arxiv.org/abs/2102.03150>`_ paper; linear maps are of points, and
    no edge is multiplied by a matrix of channels. With the norms, vectors
    grow at most in proportion to what they were, however many layers follow.

    Args:
        channels (int): Size of each input and output sample: of scalars, and
            of vectors.
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        basis (str, optional): What to tell messages of distances:
            :obj:`"distance"`, as they are, or :obj:`"bessel"`.
            (default: :obj:`"distance"`)
        num_basis (int, optional): Number of Bessel functions.
            (default: :obj:`8`)
        cutoff (float, optional): The distance at which Bessel functions
            vanish, in the units of the positions; needed for these.
            (default: :obj:`None`)
        edge_dim (int, optional): Size of each edge's features, which must
            not depend on the orientation. (default: :obj:`None`, there are
            none)
        aggr (str or torch_geometric.nn.aggr.Aggregation, optional): How to
            aggregate messages, a linear way lest vectors no longer turn
            along. (default: :obj:`"mean"`)

    Shapes:
        - **input:**
          scalars :math:`(N, C)`, vectors :math:`(N, D, C)`, a tree of
          :math:`N` points, edge indices :math:`(2, E)`, edge features
          :math:`(E, F_{edge})` *(optional)*
        - **output:** scalars :math:`(N, C)`, vectors :math:`(N, D, C)`
    """
    def __init__(
        self,
        channels: int,
        *,
        dim: int = 3,
        basis: str = 'distance',
        num_basis: int = 8,
        cutoff: float | None = None,
        edge_dim: int | None = None,
        aggr: str | Aggregation = 'mean',
    ) -> None:
        check_aggr(aggr)
        super().__init__(aggr=aggr)
        check_positive('channels', channels)
        check_positive('dim', dim)
        check_choice('basis', basis, ('distance', 'bessel'))
        if edge_dim is not None:
            check_positive('edge_dim', edge_dim)
        self.channels = channels
        self.dim = dim
        self.edge_dim = edge_dim

        self.basis = None
        if basis == 'bessel':
            self.basis = BesselBasis(num_basis, cutoff)
        width = (edge_dim or 0) + (1 if basis == 'distance' else num_basis)
        self.lin_src = Linear(channels, channels)
        self.lin_dst = Linear(channels, channels, bias=False)
        self.lin_vec = Linear(channels, channels, bias=False)
        self.lin_edge = Linear(width, channels, bias=False)
        self.act = GELU()
        self.norm_message = LayerNorm(channels)
        self.lin_vec_out = Linear(2 * channels, channels, bias=False)
        self.lin_update = Linear(4 * channels, 2 * channels)
        self.norm_update = LayerNorm(channels)
        self.norm_gate = LayerNorm(channels)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        reset_linear(self.lin_src, self.lin_dst, self.lin_edge,
                     self.lin_update)
        for lin in (self.lin_vec, self.lin_vec_out):
            torch.nn.init.xavier_uniform_(lin.weight)
        for norm in (self.norm_message, self.norm_update, self.norm_gate):
            norm.reset_parameters()

    def forward(
        self,
        x: Tensor,
        vec: OptTensor,
        tree: BallTree,
        edge_index: Tensor | TreeEdges,
        edge_shift: OptTensor = None,
        edge_attr: OptTensor = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The scalars of the points.
            vec (torch.Tensor, optional): Their vectors; :obj:`None` for
                zeros.
            tree (BallTree): Their ball tree, which knows where they are.
            edge_index (torch.Tensor or TreeEdges): Who tells whom, or what
                :meth:`~torch_geometric_erwin.BallTree.edges` returns, which
                layers can share.
            edge_shift (torch.Tensor, optional): In a periodic cell, how many
                of its vectors lead from sources to their images, of shape
                :math:`(E, D)`. (default: :obj:`None`, the nearest images)
            edge_attr (torch.Tensor, optional): The features of the edges.
                (default: :obj:`None`)

        Raises:
            ValueError: If features, edges and the tree do not fit each other
                or the layer.
        """
        check_input(x, tree, self.channels, self.dim)
        vec = check_vectors(vec, x, self.dim)
        edges = find_edges(edge_index, edge_shift, tree, self.dim)
        edge, unit = self._edge_features(edges.vectors, edge_attr, x.dtype)
        src, dst, near = self.lin_src(x), self.lin_dst(x), self.lin_vec(vec)
        out, turn = self._aggregate(src, dst, near, edge, unit, edges)
        turn = self.lin_vec_out(turn)
        out = self.lin_update(torch.cat(
            [x, out, norms(turn), inner(turn, unit_rms(near))], dim=1))
        out, gate = out.chunk(2, dim=1)
        gate = self.norm_gate(gate).unsqueeze(1)
        vec = torch.addcmul(vec + turn, gate, turn)
        return x + self.norm_update(out), vec

    def _edge_features(self, vector: Tensor, edge_attr: Any,
                       dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        r"""Returns what edges tell, and where they point."""
        far = length(vector)
        wide = far.unsqueeze(1)
        edge = wide if self.basis is None else self.basis(far)
        unit = vector / torch.where(wide > 0, wide, 1.)
        edge, unit = edge.to(dtype), unit.to(dtype)
        return add_edge_attr(edge, edge_attr, self.edge_dim), unit

    def _aggregate(self, src: Tensor, dst: Tensor, vec: Tensor, edge: Tensor,
                   unit: Tensor, edges: TreeEdges) -> tuple[Tensor, Tensor]:
        if is_fused(self, EquivariantMPNNConv):
            out, turn = equivariant_messages(
                src, dst, vec, edge, unit, self.lin_edge.weight,
                self.norm_message.weight, self.norm_message.bias,
                edges.edge_index, lists=edges.lists,
                aggr=FUSED[type(self.aggr_module)], eps=self.norm_message.eps)
        else:
            # propagate_type: (src: Tensor, dst: Tensor, vec: Tensor, edge: Tensor, unit: Tensor)  # noqa: E501
            both = self.propagate(edges.edge_index, src=src, dst=dst,
                                  vec=vec.flatten(1), edge=edge, unit=unit,
                                  size=(src.size(0), dst.size(0)))
            out, turn = reference.take_apart(both, self.channels, self.dim)
        return out.to(src.dtype), turn.to(src.dtype)

    def message(self, src_j: Tensor, dst_i: Tensor, vec_j: Tensor,
                edge: Tensor, unit: Tensor) -> Tensor:
        vec_j = vec_j.unflatten(1, (self.dim, -1))
        out = reference.arguments(src_j, dst_i, vec_j, unit)
        out = self.norm_message(self.act(out + self.lin_edge(edge)))
        return reference.with_vectors(out, vec_j, unit)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.channels}, dim={self.dim})'
