from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Parameter
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.attention.in_balls import InBalls, Rows, Share
from torch_geometric_erwin.nn.untouched import has_global_hooks, is_untouched
from torch_geometric_erwin.nn.vectors import check_vectors, reset_linear
from torch_geometric_erwin.ops.distance import length
from torch_geometric_erwin.ops.equivariant_block.reference import (
    assemble,
    relative,
)
from torch_geometric_erwin.ops.vectors import norms
from torch_geometric_erwin.tree import BallTree


class EquivariantBallAttention(InBalls):
    r"""Multi-head attention among the points of each ball, on scalars
    :math:`\mathbf{x}` and vectors :math:`\vec{\mathbf{v}}`, which turn along
    when positions, and with them the tree, are turned or mirrored: what
    :class:`~torch_geometric_erwin.nn.BallAttention` is to scalars.

    With :math:`\vec{\mathbf{o}}_i = \mathbf{p}_i - \mathbf{c}_{B(i)}`,
    queries and keys are scalars and vectors of

    .. math::
        \mathbf{h}_i = \mathbf{x}_i + \mathbf{W}_{\textrm{pos}}
        \| \vec{\mathbf{o}}_i \| + \mathbf{b}, \qquad
        \mathbf{W} \mathbf{h}_i, \qquad
        \mathbf{U} \vec{\mathbf{v}}_i + \mathbf{u} \, \vec{\mathbf{o}}_i,

    scores :math:`a_{ij}` their inner products, with distances as in
    :class:`~torch_geometric_erwin.nn.BallAttention`, and values scalars,
    vectors and directions:

    .. math::
        \mathbf{s}_i &= \sum_{j \in B(i)} a_{ij} \mathbf{W}_v \mathbf{h}_j

        \vec{\mathbf{t}}_i &= \sum_{j \in B(i)} a_{ij} \big( \mathbf{U}_v
        \vec{\mathbf{v}}_j + (\mathbf{W}_{\phi} \mathbf{h}_j) (\mathbf{p}_j -
        \mathbf{p}_i) \big)

        \mathbf{x}^{\prime}_i &= \mathbf{W}_o [\mathbf{s}_i, \|
        \vec{\mathbf{t}}_i \|], \qquad \vec{\mathbf{v}}^{\prime}_i =
        \mathbf{U}_o \vec{\mathbf{t}}_i

    A head of :math:`E` channels has about :math:`E / 2` scalars and
    :math:`E / 8` vectors, so in three dimensions its queries, keys and values
    are as wide as those of
    :class:`~torch_geometric_erwin.nn.BallAttention`, and computed by the same
    kernels. Heads share the tree's orientations, and messages run edge by
    edge where somebody wants to see them, as they do there.

    Args:
        channels (int): Size of each input and output sample: of scalars, and
            of vectors.
        heads (int, optional): Number of attention heads; divides
            :obj:`channels`. (default: :obj:`1`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        bias (str, optional): How distances enter; see
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`"distance"`)
        signed (bool, optional): See
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`False`)
        dropout (float, optional): Dropout probability of attention weights
            in training. (default: :obj:`0.`)

    Shapes:
        - **input:**
          scalars :math:`(N, C)`, vectors :math:`(N, D, C)`, a tree of
          :math:`N` points
        - **output:** scalars :math:`(N, C)`, vectors :math:`(N, D, C)`; with
          :obj:`return_attention_weights=True` also
          :math:`((2, E), (E, H))`
    """
    def __init__(
        self,
        channels: int,
        heads: int = 1,
        *,
        dim: int = 3,
        bias: str | None = 'distance',
        signed: bool = False,
        dropout: float = 0.,
    ) -> None:
        super().__init__(channels, heads, dim, bias, signed, dropout)
        self.scalars = max(channels // heads // 2, 1)  # of a head
        self.vectors = max(channels // heads // 8, 1)

        both = self.scalars + self.vectors
        self.lin_pos = Linear(1, channels)
        # Of each head in turn, lest a share of the heads is here and there:
        self.lin_qkv = Linear(channels, heads * 3 * both)
        self.lin_vec = Linear(channels, heads * 3 * self.vectors, bias=False)
        self.pos_weight = Parameter(torch.empty(heads, 2, self.vectors))
        self.lin_out = Linear(heads * both, channels)
        self.lin_vec_out = Linear(heads * self.vectors, channels, bias=False)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        reset_linear(self.lin_pos, self.lin_qkv, self.lin_out, self.lin_vec,
                     self.lin_vec_out)
        torch.nn.init.xavier_uniform_(self.lin_qkv.weight)
        torch.nn.init.xavier_uniform_(self.lin_vec.weight)
        torch.nn.init.normal_(self.pos_weight, std=0.02)
        self.reset_sigma()

    def forward(
        self,
        x: Tensor,
        vec: OptTensor,
        tree: BallTree,
        partition: int | None = None,
        return_attention_weights: bool | None = None,
        offset: OptTensor = None,
    ) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The scalars of the points.
            vec (torch.Tensor, optional): Their vectors; :obj:`None` for
                zeros.
            tree (BallTree): Their ball tree.
            partition (int, optional): Which of the tree's orientations to
                attend in. (default: :obj:`None`, all, dealt out to the heads)
            return_attention_weights (bool, optional): If set to
                :obj:`True`, will additionally return the tuple
                :obj:`(edge_index, attention_weights)`.
                (default: :obj:`None`)
            offset (torch.Tensor, optional): What
                :obj:`tree.offsets(partition)` of a given orientation
                returns, if it is at hand. (default: :obj:`None`)

        Raises:
            ValueError: If features and tree do not fit each other or the
                layer.
        """
        self._check(x, tree, partition, offset, return_attention_weights)
        vec = check_vectors(vec, x, self.dim)
        if tree.virtual == 'copy':
            tree, index, inverse = tree.in_slot_order()
            x, vec = self.forward(x[index], vec[index], tree, partition)
            return x[inverse], vec[inverse]

        shares = self._shares(tree, partition)
        offsets = [tree.offsets(share.partition) if offset is None else offset
                   for share in shares]
        rows = [self._project(x, vec, share, o.to(x.dtype))
                for share, o in zip(shares, offsets, strict=True)]
        out, edges = self._attend(rows, shares, tree, partition,
                                  bool(return_attention_weights))
        result = self._update(out, shares, offsets)
        return (*result, edges) if return_attention_weights else result

    def _project(self, x: Tensor, vec: Tensor, share: Share,
                 offset: Tensor) -> Rows:
        r"""Returns queries, keys and values of some of the heads."""
        x = x + self.lin_pos(length(offset).unsqueeze(1).to(x.dtype))
        x = self._of_heads(self.lin_qkv, x, share)
        vec = self._of_heads(self.lin_vec, vec, share)
        weight = self.pos_weight[share.first:share.end]
        return assemble(x, vec, offset, weight).unbind(2)

    def _of_heads(self, lin: Linear, x: Tensor,
                  share: Share) -> Tensor:
        r"""Returns what a linear layer gives to some of the heads."""
        heads, shape = slice(share.first, share.end), (self.heads, -1)
        if share.number == self.heads:
            return lin(x)
        if not is_untouched(lin, Linear) or has_global_hooks():
            return lin(x).unflatten(-1, shape)[..., heads, :].flatten(-2)
        weight, bias = (None if w is None else
                        w.unflatten(0, shape)[heads].flatten(0, 1)
                        for w in (lin.weight, lin.bias))
        return F.linear(x, weight, bias)

    def _update(self, out: Tensor, shares: list[Share],
                offsets: list[Tensor]) -> tuple[Tensor, Tensor]:
        r"""Takes the heads' sums to scalars and vectors, these relative to
        the point that attends.
        """
        sizes = [share.number for share in shares]
        parts = [relative(part, o.to(out.dtype), self.vectors)
                 for part, o in zip(out.split(sizes, 1), offsets,
                                    strict=True)]
        x = torch.cat([part[0] for part in parts], dim=1)
        vec = torch.cat([part[1].transpose(1, 2) for part in parts], dim=1)
        x, vec = self._average(x, shares), self._average(vec, shares)
        vec = vec.transpose(1, 2)
        x = torch.cat([x, norms(vec)], dim=2)
        return self.lin_out(x.flatten(1)), self.lin_vec_out(vec.flatten(2))
