r"""Nearest neighbours in torch operations, on any device.

Queries walk down the tree together, one level at a time: the walk holds
pairs of a query and a node that may hold a neighbour. Queries are taken in
chunks, so that there are about :obj:`BUDGET` numbers in memory at a time.
"""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.neighbors.levels import (
    Level,
    levels,
    nearest_in_box,
)
from torch_geometric_erwin.ops.neighbors.problem import (
    Problem,
    squared_distance,
)

BUDGET = 2**24


def neighbors(problem: Problem) -> Tensor:
    r"""Finds the neighbours of each query, a chunk of queries at a time."""
    found = [problem.id.new_empty(2, 0)]
    if problem.query.size(0) > 0 and problem.pos.size(0) > 0:
        found += Walk(problem).chunks()
    return problem.edge_index(*torch.cat(found, dim=1))


class Walk:
    r"""The tree, and what each query needs to know before it walks."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.ptr = problem.ptr
        self.levels = levels(problem.pos, problem.leaf_ptr,
                             problem.cloud_leaf, problem.id)
        self.leaf_size = int(problem.leaf_ptr.diff().max())
        self.cloud = torch.arange(
            self.ptr.numel() - 1, device=problem.pos.device
        ).repeat_interleave(problem.query_ptr.diff(),
                            output_size=problem.query.size(0))
        self.radius = problem.squared_radius().to(problem.pos.device)
        self.num_seeds = self.seeds_wanted(int(self.ptr.diff().max()))
        width = max(self.num_seeds, 8 * self.leaf_size)
        self.chunk = max(BUDGET // (width * problem.pos.size(1)), 1)

    def seeds_wanted(self, cloud_size: int) -> int:
        k = self.problem.k
        # One more than `k` has to be near: a query may find itself.
        return 0 if k is None or k + 1 >= cloud_size else min(
            2 * k + 2, cloud_size)

    def chunks(self) -> list[Tensor]:
        r"""Edges of all queries; chunks that grow too large are halved."""
        found, begin, size = [], 0, self.chunk
        while begin < self.cloud.numel():
            end = min(begin + size, self.cloud.numel())
            row = torch.arange(begin, end, device=self.cloud.device)
            edges = self.search(row)
            if edges is None:
                size = (end - begin) // 2
                continue
            found.append(edges)
            begin = end
        return found

    def search(self, row: Tensor) -> Tensor | None:
        r"""Edges of some queries; none if that takes too much memory."""
        bound = self.radius.expand(row.numel())
        if self.num_seeds > 0:
            bound = torch.minimum(bound, self.seed_bound(row))
        pairs = self.leaves(row, bound)
        return None if pairs is None else self.edges(row, bound, *pairs)

    def cell(self, row: Tensor) -> Tensor | None:
        box = self.problem.box
        return None if box is None else box[self.cloud[row]]

    def distance(self, row: Tensor, col: Tensor) -> Tensor:
        r"""Squared distances of each query to its points."""
        col = col.clamp(max=self.problem.pos.size(0) - 1)
        cell = self.cell(row)
        return squared_distance(self.problem.query[row][:, None],
                                self.problem.pos[col],
                                None if cell is None else cell[:, None])

    def gap(self, row: Tensor, level: Level, node: Tensor) -> Tensor:
        return nearest_in_box(self.problem.query[row], level.low[node],
                              level.high[node], self.cell(row))

    def seed_bound(self, row: Tensor) -> Tensor:
        r"""A squared distance within which each query has neighbours
        enough: that of its `k`-th neighbour among some points nearby.
        """
        assert self.problem.k is not None
        begin, end = self.ptr[self.cloud[row]], self.ptr[self.cloud[row] + 1]
        first = torch.minimum(self.home(row) - self.num_seeds // 2,
                              end - self.num_seeds)
        step = torch.arange(self.num_seeds, device=row.device)
        col = torch.maximum(first, begin)[:, None] + step
        distance = self.distance(row, col)
        distance = distance.where(col < end[:, None], float('inf'))
        return distance.kthvalue(self.problem.k + 1, dim=1).values

    def home(self, row: Tensor) -> Tensor:
        r"""A row of the points that is near each query."""
        if self.problem.itself:
            return row
        node = self.cloud[row]
        for level, below in zip(self.levels, self.levels[1:], strict=False):
            left = level.child[node]
            right = left + level.splits[node]
            closer = self.gap(row, below, right) < self.gap(row, below, left)
            node = torch.where(closer, right, left)
        return self.problem.leaf_ptr[self.levels[-1].begin[node]]

    def leaves(self, row: Tensor,
               bound: Tensor) -> tuple[Tensor, Tensor] | None:
        r"""Pairs of a query's place in :obj:`row` and a leaf in reach."""
        top = self.levels[0]
        place = (top.end > top.begin)[self.cloud[row]].nonzero()[:, 0]
        node = self.cloud[row[place]]
        for i, level in enumerate(self.levels):
            if i > 0:
                place, node = self.levels[i - 1].descend(place, node)
            gap = self.gap(row[place], level, node)
            reach = gap <= bound[place]
            tied = reach & (gap == bound[place]) & level.flat[node]
            reach &= ~self.late(level, place, node, tied)
            place, node = place[reach], node[reach]
            if row.numel() > 1 and self.too_many(place.numel()):
                return None
        return place, self.levels[-1].begin[node]

    def late(self, level: Level, place: Tensor, node: Tensor,
             tied: Tensor) -> Tensor:
        r"""Which of the nodes, all points of which tie for the last place,
        come too late: enough others hold a point with a smaller number.
        """
        late = torch.zeros_like(tied)
        pair = tied.nonzero()[:, 0]
        if self.problem.k is not None and pair.numel() > self.problem.k:
            pair = pair[lexsort(level.least[node[pair]], place[pair])]
            before = rank(place[pair], int(place.max()) + 1)
            late[pair[before > self.problem.k]] = True
        return late

    def too_many(self, num_pairs: int) -> bool:
        return num_pairs * self.leaf_size * self.problem.pos.size(1) > BUDGET

    def edges(self, row: Tensor, bound: Tensor, place: Tensor,
              leaf: Tensor) -> Tensor:
        r"""The pairs of points within bounds, the nearest of them."""
        p = self.problem
        step = torch.arange(self.leaf_size, device=row.device)
        col = p.leaf_ptr[leaf][:, None] + step
        distance = self.distance(row[place], col)
        found = distance <= bound[place][:, None]
        found &= col < p.leaf_ptr[leaf + 1][:, None]
        pair, _ = found.nonzero(as_tuple=True)
        place, neighbor = place[pair], p.id[col[found]]
        order = lexsort(neighbor, distance[found], place)
        place, neighbor = place[order], neighbor[order]
        query = p.query_id[row[place]]
        if p.excludes:
            other = query != neighbor
            place, query, neighbor = place[other], query[other], neighbor[
                other]
        near = rank(place, row.numel()) < (p.k or p.pos.size(0))
        return torch.stack([query[near], neighbor[near]])


def lexsort(*keys: Tensor) -> Tensor:
    r"""The order by the last key, ties by the one before it, and so on."""
    order = keys[0].argsort()
    for key in keys[1:]:
        order = order[key[order].argsort(stable=True)]
    return order


def rank(place: Tensor, num_places: int) -> Tensor:
    r"""The position of each element among those of its (sorted) place."""
    count = torch.zeros(num_places, dtype=torch.int64, device=place.device)
    count.scatter_add_(0, place, torch.ones_like(place))
    start = count.cumsum(0) - count
    return torch.arange(place.numel(), device=place.device) - start[place]
