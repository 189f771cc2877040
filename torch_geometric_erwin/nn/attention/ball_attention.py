from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Parameter
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import OptTensor
from torch_geometric.utils import softmax

from torch_geometric_erwin.nn.checks import (
    check_choice,
    check_dropout,
    check_heads,
    check_input,
    check_partition,
    check_positive,
)
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.nn.untouched import (
    has_global_hooks,
    is_untouched,
    is_watched,
)
from torch_geometric_erwin.ops.ball_attention import (
    BIASES,
    Balls,
    ball_attention,
)
from torch_geometric_erwin.ops.distance import at_least_float, distance
from torch_geometric_erwin.tree import BallTree


class Share(NamedTuple):
    r"""The heads, from the first up to the end, that attend in one of the
    orientations.
    """
    partition: int
    first: int
    end: int

    @property
    def number(self) -> int:
        return self.end - self.first


class BallAttention(NotScriptable, MessagePassing):
    r"""Multi-head attention among the points of each ball, from the
    `"Erwin: A Tree-based Hierarchical Transformer for Large-scale Physical
    Systems" <https://arxiv.org/abs/2502.17019>`_ paper (equations 8 to 10):

    .. math::
        \mathbf{h}_i &= \mathbf{x}_i + \mathbf{W}_{\textrm{pos}}
        (\mathbf{p}_i - \mathbf{c}_{B(i)})

        \mathbf{x}^{\prime}_i &= \mathbf{W}_o \sum_{j \in B(i)}
        \textrm{softmax}_j \left( \frac{(\mathbf{W}_q \mathbf{h}_i)^{\top}
        \mathbf{W}_k \mathbf{h}_j}{\sqrt{E}} - \sigma^2 \| \mathbf{p}_i -
        \mathbf{p}_j \| \right) \mathbf{W}_v \mathbf{h}_j

    with a learned :math:`\sigma` for each head. Distances in a periodic
    tree are those to the nearest images.

    The heads share the tree's orientations, and with them different balls
    :math:`B`, so that information crosses the borders of balls where layers
    follow one another: of :math:`H` heads in :math:`O` orientations, head
    :math:`h` attends in orientation :math:`\lfloor h O / H \rfloor`. With
    fewer heads than orientations, each attends in several and takes the mean.
    Give :obj:`partition` to let all heads attend in one orientation, as in
    the paper.

    The balls are a graph,
    :meth:`torch_geometric_erwin.BallTree.edge_index`, and this is a
    :class:`~torch_geometric.nn.MessagePassing` layer on it: slower, and with
    the same result, messages run edge by edge where somebody wants to see
    them. That is when attention weights are asked for, when a hook on
    messages is registered, and when PyG explains the model. In the last two
    cases, and where heads share the orientations, the edges are those of
    *all* orientations, :obj:`tree.edge_index(None)`, with a weight of zero
    where a head does not attend, so that edges mean the same in all layers.
    To explain the attention, pass these, or those of the first orientation
    alone, as :obj:`edge_index` to the explainer; an edge mask of any other
    graph leaves the layer alone. PyG's
    :class:`~torch_geometric.explain.algorithm.AttentionExplainer` takes the
    weights of all attention layers to be of the edges it is given: where they
    are of another graph, hide this layer by :obj:`layer.explain = False`.

    Args:
        channels (int): Size of each input and output sample.
        heads (int, optional): Number of attention heads; divides
            :obj:`channels`. (default: :obj:`1`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        bias (str, optional): How distances enter: :obj:`"distance"`
            (equation 10), :obj:`"squared"` for :math:`-\sigma^2 \|
            \mathbf{p}_i - \mathbf{p}_j \|^2`, which is smooth and which
            PyTorch's fused kernels serve, too, or :obj:`None`.
            (default: :obj:`"distance"`)
        signed (bool, optional): If set to :obj:`True`, distances are
            multiplied by :math:`\sigma` itself, which may become positive,
            as in the authors' code. (default: :obj:`False`)
        dropout (float, optional): Dropout probability of attention weights
            in training. (default: :obj:`0.`)

    Shapes:
        - **input:**
          point features :math:`(N, C)`, a tree of :math:`N` points
        - **output:** point features :math:`(N, C)`; with
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
        super().__init__(aggr='add', node_dim=0)
        check_heads(channels, heads)
        check_positive('dim', dim)
        check_choice('bias', bias, BIASES)
        check_dropout(dropout)

        self.channels = channels
        self.heads = heads
        self.dim = dim
        self.bias = bias
        self.signed = signed
        self.dropout = dropout

        self.lin_pos = Linear(dim, channels)
        self.lin_qkv = Linear(channels, 3 * channels)
        self.lin_out = Linear(channels, channels)
        if bias is None:
            self.register_parameter('sigma', None)
        else:
            self.sigma = Parameter(torch.empty(heads))

        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in (self.lin_pos, self.lin_qkv, self.lin_out):
            torch.nn.init.trunc_normal_(lin.weight, std=0.02)
            torch.nn.init.zeros_(lin.bias)
        # With scores that vanish, narrow layers take long to learn what to
        # look for: as in PyTorch's attention, these depend on the channels.
        torch.nn.init.xavier_uniform_(self.lin_qkv.weight)
        if self.sigma is not None:
            mean = -1. if self.signed else 1.
            torch.nn.init.normal_(self.sigma, mean, 0.01)

    def forward(
        self,
        x: Tensor,
        tree: BallTree,
        partition: int | None = None,
        return_attention_weights: bool | None = None,
        offset: Tensor | None = None,
    ) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
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
        check_input(x, tree, self.channels, self.dim)
        if partition is not None:
            check_partition(tree, partition)
        if tree.virtual == 'copy':
            if return_attention_weights:
                raise ValueError("Expected 'tree' to have virtual='masked' "
                                 "in order to return attention weights of "
                                 "points (got 'copy')")
            tree, index, inverse = tree.in_slot_order()
            return self.forward(x[index], tree, partition)[inverse]

        if offset is not None and partition is None:
            raise ValueError("Expected 'partition' to tell which orientation "
                             "'offset' is of (got None)")
        shares = self._shares(tree, partition)
        rows = [self._project(x, tree, share, offset) for share in shares]

        edges = None
        if return_attention_weights or self.is_watched():
            out, edges = self._by_edge(rows, shares, tree, partition)
        else:
            parts = [self._in_balls(row, share, tree)
                     for row, share in zip(rows, shares, strict=True)]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        out = self.lin_out(self._average(out, shares).flatten(1))
        return (out, edges) if return_attention_weights else out

    def slope(self) -> OptTensor:
        r"""Returns what each head multiplies distances by."""
        if self.sigma is None:
            return None
        return self.sigma if self.signed else -self.sigma.square()

    def is_watched(self) -> bool:
        r"""Returns whether somebody wants to see or change messages."""
        return is_watched(self)

    def _shares(self, tree: BallTree, partition: int | None) -> list[Share]:
        r"""Returns who attends where: all heads in one orientation, or each
        orientation with a share of the heads.
        """
        if partition is not None:
            return [Share(partition, 0, self.heads)]
        number = tree.num_orientations
        most = max(number, self.heads)
        last = [-(-i * most // number) for i in range(number + 1)]
        return [Share(i, last[i] * self.heads // most,
                      (last[i + 1] - 1) * self.heads // most + 1)
                for i in range(number)]

    def _project(self, x: Tensor, tree: BallTree, share: Share,
                 offset: OptTensor) -> tuple[Tensor, ...]:
        r"""Returns queries, keys and values of some of the heads."""
        if offset is None:
            offset = tree.offsets(share.partition)
        h = x + self.lin_pos(offset.to(x.dtype))
        shape, heads = (3, self.heads, -1), slice(share.first, share.end)
        lin = self.lin_qkv
        if (share.number == self.heads or not is_untouched(lin, Linear)
                or has_global_hooks()):
            return lin(h).unflatten(1, shape)[:, :, heads].unbind(1)
        weight, bias = (w.unflatten(0, shape)[:, heads].flatten(0, 2)
                        for w in (lin.weight, lin.bias))
        return F.linear(h, weight, bias).unflatten(
            1, (3, share.number, -1)).unbind(1)

    def _in_balls(self, row: tuple[Tensor, ...], share: Share,
                  tree: BallTree) -> Tensor:
        query, key, value = row
        slope = self.slope()
        if slope is not None:
            slope = slope[share.first:share.end]
        return ball_attention(
            query, key, value, tree.pos, slope,
            balls_of(tree, share.partition), bias=self.bias,
            dropout=self.dropout if self.training else 0.)

    def _average(self, x: Tensor, shares: list[Share]) -> Tensor:
        r"""Takes the mean of a head that attends in several orientations."""
        if x.size(1) == self.heads:
            return x
        sizes = [sum(share.first == i for share in shares)
                 for i in range(self.heads)]
        return torch.stack([part.mean(1) for part in x.split(sizes, 1)], 1)

    def _by_edge(
        self,
        rows: list[tuple[Tensor, ...]],
        shares: list[Share],
        tree: BallTree,
        partition: int | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = (torch.cat(x, dim=1) for x in zip(*rows, strict=True))
        heads = [i for share in shares for i in range(share.first, share.end)]
        place = [share.partition for share in shares
                 for _ in range(share.number)]
        slope = self.slope()
        if slope is not None and len(heads) != self.heads:
            slope = slope[heads]
        own = tree.edge_index(partition)
        edge_index, active = own, None
        if partition is None or self.is_watched():
            edge_index, active = self._all_edges(tree, place)
        box = None if tree.cell is None else tree.cell[tree.batch]

        # edge_updater_type: (q: Tensor, k: Tensor, pos: Tensor, box: OptTensor, active: OptTensor, slope: OptTensor)  # noqa: E501
        alpha = self.edge_updater(edge_index, q=q, k=k, pos=tree.pos, box=box,
                                  active=active, slope=slope)

        # propagate_type: (v: Tensor, alpha: Tensor)
        out = self.propagate(edge_index, v=v, alpha=alpha).to(v.dtype)
        if partition is None:
            alpha = self._average(alpha, shares)
        elif active is not None:
            alpha = alpha[active[:, 0]]
        return out, (own, alpha)

    @staticmethod
    def _all_edges(tree: BallTree, place: list[int]) -> tuple[Tensor, Tensor]:
        r"""Returns the edges of all orientations, and along which of them
        heads attend that do so in these orientations.
        """
        parts = [tree.edge_index(i) for i in range(tree.num_orientations)]
        place_of_head = torch.tensor(place, device=tree.device)
        active = torch.cat([
            (place_of_head == i).expand(edges.size(1), -1)
            for i, edges in enumerate(parts)])
        return torch.cat(parts, dim=1), active

    def edge_update(self, q_i: Tensor, k_j: Tensor, pos_i: Tensor,
                    pos_j: Tensor, box_i: OptTensor, active: OptTensor,
                    slope: OptTensor, index: Tensor, ptr: OptTensor,
                    dim_size: Optional[int]) -> Tensor:  # noqa: UP045
        score = (at_least_float(q_i) * at_least_float(k_j)).sum(-1)
        score = score * q_i.size(-1)**-0.5
        if slope is not None:
            far = distance(pos_i, pos_j, box_i, self.bias == 'squared')
            score = score + slope * far.to(score.dtype).unsqueeze(-1)
        if active is not None:
            score = score.masked_fill(~active, -torch.inf)
        alpha = softmax(score, index, ptr, dim_size)
        return F.dropout(alpha, p=self.dropout, training=self.training)

    def message(self, v_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha.unsqueeze(-1) * v_j

    def explain_message(self, inputs: Tensor, edge_index: Tensor) -> Tensor:
        mask, loop = self._edge_mask, self._loop_mask
        if mask is None or loop is None:
            raise ValueError("Could not find a pre-defined 'edge_mask' to "
                             "explain. Did you forget to initialize it?")
        # Is it a mask of these edges? Where loops are tells graphs apart.
        first = edge_index[:, :mask.size(0)]
        if not torch.equal(first[0] != first[1], loop):
            return inputs
        if self._apply_sigmoid:
            mask = mask.sigmoid()
        rest = mask.new_ones(inputs.size(0) - mask.size(0))
        return inputs * torch.cat([mask, rest]).view(-1, 1, 1)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.channels}, '
                f'heads={self.heads}, dim={self.dim}, bias={self.bias!r})')


def balls_of(tree: BallTree, partition: int) -> Balls:
    r"""Returns what attention needs to know of a tree."""
    part = tree.partition(partition)
    return Balls(tree.ball_size, part.index, part.inverse, part.mask,
                 tree.box_of_ball(partition))
