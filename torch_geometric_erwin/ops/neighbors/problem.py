r"""What a neighbour search is given, the same for each implementation."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    r"""A checked neighbour search on points in tree order.

    Shapes: :math:`N` points in :math:`L` leaves and :math:`B` clouds,
    :math:`M` queries.

    Args:
        pos: Points, contiguous, float32 or float64, :math:`[N, D]`.
        leaf_ptr: Rows of each leaf, :math:`[L + 1]`.
        cloud_leaf: Leaves of each cloud, :math:`[B + 1]`.
        id: Original numbers of the points, a permutation, :math:`[N]`.
        query: Where to search, :math:`[M, D]`.
        query_ptr: Queries of each cloud, :math:`[B + 1]`.
        query_id: Original numbers of the queries, :math:`[M]`.
        k: Most neighbours of a query, or :obj:`None`.
        r: Largest distance of a neighbour, or :obj:`None`.
        box: Sides of the periodic cells, :math:`[B, D]`, or :obj:`None`.
        itself: Whether the queries are the points themselves.
        loop: Whether a point may be its own neighbour.
        query_row: The row of the result that holds the queries.
    """
    pos: Tensor
    leaf_ptr: Tensor
    cloud_leaf: Tensor
    id: Tensor
    query: Tensor
    query_ptr: Tensor
    query_id: Tensor
    k: int | None
    r: float | None
    box: Tensor | None
    itself: bool
    loop: bool
    query_row: int

    @property
    def ptr(self) -> Tensor:
        r"""Rows of each cloud, :math:`[B + 1]`."""
        return self.leaf_ptr[self.cloud_leaf]

    @property
    def excludes(self) -> bool:
        r"""Whether a query finds itself, and must not."""
        return self.itself and not self.loop

    def squared_radius(self) -> Tensor:
        r"""The largest squared distance, rounded as distances are."""
        r = float('inf') if self.r is None else self.r
        return torch.tensor(r, dtype=self.pos.dtype)**2

    def edge_index(self, query: Tensor, neighbor: Tensor) -> Tensor:
        r"""Edges in the order of the queries' original numbers."""
        order = query.argsort(stable=True)
        rows = [query[order], neighbor[order]]
        return torch.stack(rows if self.query_row == 0 else rows[::-1])


def squared_distance(a: Tensor, b: Tensor, box: Tensor | None) -> Tensor:
    r"""Squared distances along the last axis, to the nearest image.

    Axes are summed one after the other, as the C++ kernel does: ties and
    roundings are then the same everywhere.
    """
    delta = (a - b).abs()
    if box is not None:
        around = box - delta
        delta = torch.where(around < delta, around, delta)
    return sum_of_squares(delta)


def sum_of_squares(delta: Tensor) -> Tensor:
    total = delta[..., 0] * delta[..., 0]
    for axis in range(1, delta.size(-1)):
        total = total + delta[..., axis] * delta[..., axis]
    return total
