r"""Nearest neighbours by comparing all pairs: the definition."""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.neighbors.problem import (
    Problem,
    squared_distance,
)


def neighbors(problem: Problem) -> Tensor:
    r"""Finds the neighbours of each query, cloud by cloud."""
    ptr, query_ptr = problem.ptr.tolist(), problem.query_ptr.tolist()
    empty = problem.id.new_empty(2, 0)
    pairs = [
        cloud_neighbors(problem, i, slice(*query_ptr[i:i + 2]),
                        slice(*ptr[i:i + 2]))
        for i in range(len(ptr) - 1)
    ]
    return problem.edge_index(*torch.cat([empty, *pairs], dim=1))


def cloud_neighbors(p: Problem, cloud: int, rows: slice,
                    cols: slice) -> Tensor:
    r"""Pairs of query and neighbour, nearest first, ties by number."""
    neighbor, by_id = p.id[cols].sort()
    box = None if p.box is None else p.box[cloud]
    distance = squared_distance(p.query[rows, None], p.pos[cols][by_id], box)
    found = distance <= p.squared_radius().to(distance.device)
    if p.excludes:
        found &= p.query_id[rows, None] != neighbor
    # What is not found comes last, after distances that overflowed to inf.
    order = distance.argsort(dim=1, stable=True)
    late = (~found).gather(1, order).int().argsort(dim=1, stable=True)
    order = order.gather(1, late)[:, :p.k]
    row, col = found.gather(1, order).nonzero(as_tuple=True)
    return torch.stack([p.query_id[rows][row], neighbor[order[row, col]]])
