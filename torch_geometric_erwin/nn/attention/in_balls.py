from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
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
from torch_geometric_erwin.nn.untouched import is_watched
from torch_geometric_erwin.ops.ball_attention import (
    BIASES,
    Balls,
    ball_attention,
)
from torch_geometric_erwin.ops.distance import at_least_float, distance
from torch_geometric_erwin.tree import BallTree

# Queries, keys and values of some heads, each of shape (N, H, E):
Rows = tuple[Tensor, ...]


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


class InBalls(NotScriptable, MessagePassing):
    r"""What attention layers have in common: which head attends where, and
    attention in balls by the kernels, or along edges, with the same result,
    where somebody wants to see messages.

    Args:
        channels (int): Size of each input and output sample.
        heads (int): Number of attention heads; divides :obj:`channels`.
        dim (int): Number of dimensions of the positions.
        bias (str, optional): How distances enter.
        signed (bool): Whether distances are multiplied by :math:`\sigma`
            itself.
        dropout (float): Dropout probability of attention weights in training.
    """
    sigma: OptTensor

    def __init__(self, channels: int, heads: int, dim: int, bias: str | None,
                 signed: bool, dropout: float) -> None:
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
        if bias is None:
            self.register_parameter('sigma', None)
        else:
            self.sigma = Parameter(torch.empty(heads))

    def reset_sigma(self) -> None:
        r"""Resets what each head multiplies distances by."""
        if self.sigma is not None:
            mean = -1. if self.signed else 1.
            torch.nn.init.normal_(self.sigma, mean, 0.01)

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

    def _check(self, x: Tensor, tree: BallTree, partition: Any,
               offset: OptTensor, with_weights: bool | None) -> None:
        check_input(x, tree, self.channels, self.dim)
        if partition is not None:
            check_partition(tree, partition)
        elif offset is not None:
            raise ValueError("Expected 'partition' to tell which orientation "
                             "'offset' is of (got None)")
        if tree.virtual == 'copy' and with_weights:
            raise ValueError("Expected 'tree' to have virtual='masked' in "
                             "order to return attention weights of points "
                             "(got 'copy')")

    def _attend(
        self,
        rows: list[Rows],
        shares: list[Share],
        tree: BallTree,
        partition: int | None,
        with_weights: bool,
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        r"""Returns the sums of all shares' heads, one after the other, and
        edges and weights, if somebody wants to see them.
        """
        if with_weights or self.is_watched():
            return self._by_edge(rows, shares, tree, partition)
        parts = [self._in_balls(row, share, tree)
                 for row, share in zip(rows, shares, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1), None

    def _in_balls(self, row: Rows, share: Share,
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
        rows: list[Rows],
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
