r"""Splits along the principal axes of each node's points, which turn along
with them. See `csrc/tree/principal.h` for the rules, which are the same.
"""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.eigenvectors import (
    FLAT,
    eigenvectors,
)
from torch_geometric_erwin.ops.build_tree.layout import stable_argsort
from torch_geometric_erwin.ops.build_tree.orientation import Orientation

EVEN = 1e-6  # of the third absolute moment: no skewness
THIN = 1e-9  # of the spread: no extent
LINE = 1e-6  # of the variance: no second axis
BITS = {torch.float32: 22, torch.float64: 32}  # of an extent


class PrincipalAxes:
    r"""Orders the points of nodes along a direction of each.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        way: The orientation: by which angle directions are turned from the
            first principal axis to the second.
    """
    def __init__(self, pos: Tensor, way: Orientation) -> None:
        self.way = way
        self.pos = pos.double()
        self.bits = BITS[pos.dtype]
        order = torch.arange(pos.size(0), device=pos.device)
        for column in (pos + 0.).t().flip(0):
            order = order[torch.sort(column[order], stable=True).indices]
        self.tie = torch.empty_like(order)
        self.tie[order] = torch.arange(pos.size(0), device=pos.device)

    def split(self, order: Tensor, begin: Tensor, size: Tensor,
              num_left: Tensor) -> Tensor:
        r"""Brings the points of each node that go left before the others.

        Args:
            order: The point at each position, shape :math:`(N)`.
            begin: Where each position's node begins, shape :math:`(N)`.
            size: The size of each position's node, shape :math:`(N)`.
            num_left: How many of its points go left, shape :math:`(N)`.
        """
        here = torch.arange(len(order), device=order.device)
        goes_left = self._rank(order, begin, size) < num_left
        before = goes_left.cumsum(0) - goes_left.long()
        rank = before - before[begin]
        to = torch.where(goes_left, begin + rank,
                         begin + num_left + (here - begin - rank))
        return torch.empty_like(order).scatter_(0, to, order)

    def sort(self, order: Tensor, begin: Tensor, size: Tensor) -> Tensor:
        r"""Sorts the points of each node."""
        to = begin + self._rank(order, begin, size)
        return torch.empty_like(order).scatter_(0, to, order)

    def _rank(self, order: Tensor, begin: Tensor, size: Tensor) -> Tensor:
        r"""Returns which one in its node the point at each position is."""
        key = self._keys(self.pos[order], begin, size)
        by = torch.sort(self.tie[order], stable=True).indices
        by = by[torch.sort(key[by], stable=True).indices]
        by = by[stable_argsort(begin[by], len(order))]
        here = torch.arange(len(order), device=order.device)
        return torch.empty_like(by).scatter_(0, by, here - begin[by])

    def _keys(self, x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
        r"""Returns rounded projections on the node's direction."""
        head, node = torch.unique_consecutive(begin, return_inverse=True)
        nodes = _Nodes(node, size[head].double())
        x = x - nodes.sum(x)[node] / nodes.size[node, None]
        covariance = nodes.sum(x.unsqueeze(2) * x.unsqueeze(1))
        trace = covariance.diagonal(dim1=1, dim2=2).sum(1)
        safe = torch.where(trace > 0, trace, 1.)
        first, second = principal_axes(covariance / safe[:, None, None])
        t = nodes.project(x, first)
        if self.way.sine != 0.:
            t = t * self.way.cosine + nodes.project(x, second) * self.way.sine
        extent = nodes.extreme(t, 'amax') - nodes.extreme(t, 'amin')
        spread = (trace / nodes.size).sqrt()
        thin = extent <= THIN * spread
        exponent = torch.frexp(torch.where(thin, 1., extent)).exponent
        key = torch.ldexp(t, self.bits - exponent[node]).round()
        return torch.where(thin[node], 0., key)


class _Nodes:
    def __init__(self, node: Tensor, size: Tensor) -> None:
        self.node, self.size = node, size

    def sum(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(self.size), *x.shape[1:]).index_add_(
            0, self.node, x)

    def extreme(self, t: Tensor, reduce: str) -> Tensor:
        return t.new_zeros(len(self.size)).scatter_reduce(
            0, self.node, t, reduce, include_self=False)

    def project(self, x: Tensor, axis: Tensor) -> Tensor:
        r"""Returns coordinates along an axis that points to where the
        farthest points are; if to neither side, to that of its largest
        component.
        """
        t = x[:, 0] * axis[self.node, 0]
        for a in range(1, x.size(1)):
            t = t + x[:, a] * axis[self.node, a]
        cube = t * t * t
        skew, all_ = self.sum(cube), self.sum(cube.abs())
        large = axis.abs() >= axis.abs().amax(1, keepdim=True) - FLAT
        component = axis.gather(1, large.long().argmax(1, keepdim=True))
        skew = torch.where(skew.abs() > EVEN * all_, skew, component[:, 0])
        return torch.where(skew[self.node] < 0, -t, t)


def line_sense(pos: Tensor, ptr: Tensor) -> Tensor:
    r"""Returns 1 for points of clouds on a line, :math:`(N, 1)`, whose farther
    points lie ahead, else -1.
    """
    size = ptr.to(pos.device).diff()
    number = torch.arange(len(size), device=pos.device)
    nodes = _Nodes(number.repeat_interleave(size, output_size=len(pos)),
                   size.double())
    t = pos[:, 0].double()
    t = t - (nodes.sum(t) / nodes.size)[nodes.node]
    cube = t * t * t
    back = nodes.sum(cube) < -EVEN * nodes.sum(cube.abs())
    return torch.where(back, -1, 1)[nodes.node, None].to(pos.dtype)


def principal_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the axes of the largest and of the second largest variance, of
    matrices of trace one, shape :math:`(M, D, D)`; the first ones where
    variances do not differ, zeros where there is hardly any.
    """
    variance, axes = eigenvectors(covariance)
    dim = variance.size(1)
    out = []
    for _ in range(2):
        most = variance.amax(1, keepdim=True)
        which = (variance >= most - FLAT).long().argmax(1)
        axis = axes.gather(2, which.view(-1, 1, 1).expand(-1, dim, 1))
        out.append(axis.squeeze(2) * (most > LINE))
        if dim > 1:
            variance = variance.scatter(1, which[:, None], -1.)
    return out[0], out[1]
