r"""Nearest neighbours in torch operations, on any device.

Queries walk down the tree together, one level at a time: the walk holds
pairs of a query and a node that may hold a neighbour. Queries are taken in
chunks, so that there are about :obj:`BUDGET` numbers in memory at a time.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.neighbors.cells import (
    MOST_IMAGES,
    Cells,
    too_many_images,
)
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
MOST_SEEDS = 2**12  # where there is a radius


def neighbors(problem: Problem) -> tuple[Tensor, Tensor | None]:
    r"""Finds the neighbours of each query, a chunk of queries at a time."""
    found = [problem.id.new_empty(0, 2 + problem.pos.size(1))]
    if problem.query.size(0) > 0 and problem.pos.size(0) > 0:
        found += Walk(problem).chunks()
    edges = torch.cat(found)
    return problem.result(edges[:, 0], edges[:, 1], edges[:, 2:])


class Walkers(NamedTuple):
    r"""Who walks down the tree: :math:`P` pairs of a query and a translation,
    by query and shift.

    Args:
        place: The query's place among those of a chunk, :math:`[P]`.
        row: Its row, :math:`[P]`.
        shift: The translation in users' vectors, int64, :math:`[P, D]`.
        translation: The translation, :math:`[P, D]`; none if all are zero.
    """
    place: Tensor
    row: Tensor
    shift: Tensor
    translation: Tensor | None

    def chosen(self, which: Tensor) -> 'Walkers':
        t = self.translation
        return Walkers(self.place[which], self.row[which], self.shift[which],
                       None if t is None else t[which])


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
        self.seeds = Seeds.choose(problem)
        width = max(self.seeds.size, 8 * self.leaf_size)
        self.chunk = max(BUDGET // (width * problem.pos.size(1)), 1)

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
        if self.seeds.size > 0:
            bound = torch.minimum(bound, self.seed_bound(row))
        walkers = self.walkers(row, bound)
        pairs = None if walkers is None else self.leaves(walkers, bound)
        if walkers is None or pairs is None:
            return None
        return self.edges(walkers, bound, *pairs)

    def distance(self, row: Tensor, col: Tensor,
                 translation: Tensor | None) -> Tensor:
        r"""Squared distances of each query to its points."""
        col = col.clamp(max=self.problem.pos.size(0) - 1)
        query = self.problem.query[row]
        query = query.view(-1, *(col.dim() - 1) * [1], query.size(1))
        return squared_distance(self.problem.pos[col], query, translation)

    def gap(self, row: Tensor, level: Level, node: Tensor,
            translation: Tensor | None = None) -> Tensor:
        return nearest_in_box(self.problem.query[row], level.low[node],
                              level.high[node], translation)

    def seed_bound(self, row: Tensor) -> Tensor:
        r"""A squared distance within which each query has neighbours
        enough: that of its `k`-th neighbour among some points nearby.
        """
        assert self.problem.k is not None
        cloud, width = self.cloud[row], self.seeds.width
        begin, end = self.ptr[cloud], self.ptr[cloud + 1]
        first = torch.minimum(self.home(row) - width // 2, end - width)
        col = torch.maximum(first, begin)[:, None] + torch.arange(
            width, device=row.device)
        near = [self.distance(row, col, None if t is None else t[cloud, None])
                for t in self.seeds.translations]
        inside = (col < end[:, None]).repeat(1, len(near))
        distance = torch.cat(near, dim=1).where(inside, float('inf'))
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

    def walkers(self, row: Tensor, bound: Tensor) -> Walkers | None:
        r"""Pairs of queries and translations that bring points near."""
        top, cells = self.levels[0], self.problem.cells
        place = (top.end > top.begin)[self.cloud[row]].nonzero()[:, 0]
        if cells is None:
            shift = row.new_zeros(place.numel(), self.problem.pos.size(1))
            return Walkers(place, row[place], shift, None)
        cloud = self.cloud[row[place]]
        ends = image_ranges(cells, cloud, self.problem.query[row[place]],
                            top.low[cloud], top.high[cloud],
                            bound[place].double().sqrt())
        count = (ends[1] - ends[0] + 1).clamp(min=0).prod(1)
        total = float(count.sum())
        if row.numel() > 1 and self.too_many(int(min(total, 2**62))):
            return None
        if not float(count.max() if count.numel() else 0) < MOST_IMAGES:
            raise too_many_images()
        return self.list_images(row, place, bound, count.long(), ends)

    def list_images(self, row: Tensor, place: Tensor, bound: Tensor,
                    count: Tensor, ends: tuple[Tensor, Tensor]) -> Walkers:
        cells = self.problem.cells
        assert cells is not None
        first, last = (e.long().repeat_interleave(count, dim=0) for e in ends)
        start = (count.cumsum(0) - count).repeat_interleave(count)
        rest = torch.arange(start.numel(), device=row.device) - start
        numbers = torch.empty_like(first)
        for axis in reversed(range(first.size(1))):
            size = last[:, axis] - first[:, axis] + 1
            numbers[:, axis] = first[:, axis] + rest % size
            rest = rest // size
        place = place.repeat_interleave(count)
        cloud = self.cloud[row[place]]
        walkers = Walkers(
            place, row[place], cells.shifts(cloud, numbers),
            cells.translate(cloud, numbers, self.problem.pos.dtype))
        near = self.gap(walkers.row, self.levels[0], cloud,
                        walkers.translation) <= bound[place]
        walkers = walkers.chosen(near)
        return walkers.chosen(lexsort(*walkers.shift.t().flip(0),
                                      walkers.place))

    def leaves(self, walkers: Walkers,
               bound: Tensor) -> tuple[Tensor, Tensor] | None:
        r"""Pairs of a walker and a leaf in reach."""
        who = torch.arange(walkers.place.numel(), device=bound.device)
        node = self.cloud[walkers.row]
        t = walkers.translation
        for i, level in enumerate(self.levels):
            if i > 0:
                who, node = self.levels[i - 1].descend(who, node)
            limit = bound[walkers.place[who]]
            gap = self.gap(walkers.row[who], level, node,
                           None if t is None else t[who])
            reach = gap <= limit
            tied = reach & (gap == limit) & level.flat[node]
            reach &= ~self.late(level, walkers.place, who, node, tied)
            who, node = who[reach], node[reach]
            if bound.numel() > 1 and self.too_many(who.numel()):
                return None
        return who, self.levels[-1].begin[node]

    def late(self, level: Level, place: Tensor, who: Tensor, node: Tensor,
             tied: Tensor) -> Tensor:
        r"""Which of the nodes, all points of which tie for the last place,
        come too late: enough others hold a point with a smaller number, or
        the same one with a smaller shift.
        """
        late = torch.zeros_like(tied)
        pair = tied.nonzero()[:, 0]
        if self.problem.k is not None and pair.numel() > self.problem.k:
            pair = pair[lexsort(who[pair], level.least[node[pair]],
                                place[who[pair]])]
            query = place[who[pair]]
            before = rank(query, int(place.max()) + 1)
            late[pair[before > self.problem.k]] = True
        return late

    def too_many(self, num_pairs: int) -> bool:
        return num_pairs * self.leaf_size * self.problem.pos.size(1) > BUDGET

    def edges(self, walkers: Walkers, bound: Tensor, who: Tensor,
              leaf: Tensor) -> Tensor:
        r"""The pairs of points within bounds, the nearest of them, as rows
        of a query, a neighbour and a shift.
        """
        p, t = self.problem, walkers.translation
        step = torch.arange(self.leaf_size, device=who.device)
        col = p.leaf_ptr[leaf][:, None] + step
        distance = self.distance(walkers.row[who], col,
                                 None if t is None else t[who][:, None])
        found = distance <= bound[walkers.place[who]][:, None]
        found &= col < p.leaf_ptr[leaf + 1][:, None]
        pair, _ = found.nonzero(as_tuple=True)
        who, neighbor = who[pair], p.id[col[found]]
        order = lexsort(who, neighbor, distance[found], walkers.place[who])
        who, neighbor = who[order], neighbor[order]
        query, shift = p.query_id[walkers.row[who]], walkers.shift[who]
        if p.excludes:
            other = (query != neighbor) | shift.any(1)
            who, query, neighbor, shift = (
                x[other] for x in (who, query, neighbor, shift))
        rows = torch.cat([query[:, None], neighbor[:, None], shift], dim=1)
        if p.k is None:
            return rows
        return rows[rank(walkers.place[who], bound.numel()) < p.k]


@dataclass(frozen=True)
class Seeds:
    r"""Points near each query that tell how far to look for the :obj:`k`
    nearest, with images where clouds have too few.

    Args:
        width: How many rows of points; 0 if nothing is to be found out.
        translations: Of these, zero among them, :math:`[B, D]` each.
    """
    width: int
    translations: list[Tensor | None]

    @property
    def size(self) -> int:
        return self.width * len(self.translations)

    @classmethod
    def choose(cls, p: Problem) -> 'Seeds':
        sizes = p.ptr.diff()
        # One more than `k` has to be near: a query may find itself.
        k, most = p.k, int(sizes.max())
        if k is None:
            return cls(0, [])
        width = min(2 * k + 2, most)
        if p.cells is None:
            return cls(width, [None]) if k + 1 < most else cls(0, [])
        need = cells_wanted(p.cells, sizes.clamp(min=1).cpu().numpy(), k)
        if p.r is not None and width * need.max() > MOST_SEEDS:
            return cls(0, [])
        seeds = cls(width, seed_images(p, need) if need.max() > 1 else [None])
        return seeds if seeds.size > k else cls(0, [])


def seed_images(p: Problem, need: np.ndarray) -> list[Tensor | None]:
    r"""Translations of blocks of cells, infinite where a cloud has fewer."""
    assert p.cells is not None
    count = torch.from_numpy(p.cells.supercell(need)).to(p.pos.device)
    every = torch.arange(count.size(0), device=p.pos.device)
    translations: list[Tensor | None] = []
    for i in range(int(count.prod(1).max())):
        numbers = torch.empty_like(count)
        index = torch.full_like(every, i)
        for axis in range(count.size(1)):
            numbers[:, axis] = index % count[:, axis]
            index = index // count[:, axis]
        numbers -= (count - 1) // 2
        t = p.cells.translate(every, numbers, p.pos.dtype)
        t[index > 0] = float('inf')
        translations.append(t)
    return translations


def cells_wanted(cells: Cells, sizes: np.ndarray, k: int) -> np.ndarray:
    r"""How many cells hold enough seeds for each cloud, close together."""
    enough = 2. * k + 2
    need = -(-enough // np.minimum(sizes, enough))
    length = cells.vectors.norm(dim=2).cpu().numpy()
    # Where points are far apart their own images are nearer.
    own = ((cells.supercell(np.full(len(sizes), enough)) - 1) * length).sum(1)
    apart = length.max(1, initial=0) * np.minimum(enough / sizes, 1)
    return np.where(apart > 4 * own, enough, need) * (length > 0).any(1)


def image_ranges(cells: Cells, cloud: Tensor, query: Tensor, low: Tensor,
                 high: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    r"""The first and last numbers of short vectors, :math:`[P, D]`, that
    may bring points of a box to within reach of each query.
    """
    dual = cells.dual[cloud]
    reach = reach.where(dual.any(dim=(1, 2)), 0.)
    after, before = ((query - x).double().unsqueeze(1) * dual
                     for x in (low, high))
    far = torch.maximum((query - low).abs(), (high - query).abs()).double()
    size = dual.norm(dim=2) * reach[:, None]
    slack = size + 1e-5 * (size + dual.norm(dim=2) * far.norm(
        dim=1, keepdim=True))
    return ((torch.minimum(after, before).sum(2) - slack).ceil(),
            (torch.maximum(after, before).sum(2) + slack).floor())


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
