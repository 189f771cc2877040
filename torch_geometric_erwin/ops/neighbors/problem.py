r"""What a neighbour search is given, the same for each implementation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_geometric_erwin.ops.neighbors.cells import Cells
from torch_geometric_erwin.ops.periodic import inner


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
        cells: The periodic cells, or :obj:`None`.
        itself: Whether the queries are the points themselves.
        loop: Whether a point may be its own neighbour.
        query_row: The row of the result that holds the queries.
        shifts: Whether to return shifts.
        moved: How many cells were subtracted from each point, by its
            number, int64, :math:`[N, D]`, or :obj:`None`.
        moved_query: The same of the queries, :math:`[M, D]`.
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
    cells: Cells | None
    itself: bool
    loop: bool
    query_row: int
    shifts: bool
    moved: Tensor | None
    moved_query: Tensor | None

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

    @property
    def sign(self) -> int:
        r"""Shifts are of the points in the first row, or of the second row
        where that is what the search is for.
        """
        return -1 if self.itself and self.query_row == 0 else 1

    def result(self, query: Tensor, neighbor: Tensor,
               shift: Tensor) -> tuple[Tensor, Tensor | None]:
        r"""Edges in the order of the queries' original numbers."""
        order = query.argsort(stable=True)
        query, neighbor = query[order], neighbor[order]
        rows = (query, neighbor) if self.query_row == 0 else (neighbor, query)
        if not self.shifts:
            return torch.stack(rows), None
        shift = shift[order]
        if self.moved_query is not None:
            shift = shift + self.moved_query[query]
        if self.moved is not None:
            shift = shift - self.moved[neighbor]
        return torch.stack(rows), self.sign * shift


def squared_distance(point: Tensor, query: Tensor,
                     translation: Tensor | None) -> Tensor:
    r"""Squared distances along the last axis.

    Axes are summed one after the other, as the C++ kernel does: ties and
    roundings are then the same everywhere, and at both ends of an edge.
    """
    delta = point - query
    if translation is not None:
        delta = delta + translation
    return inner(delta, delta)
