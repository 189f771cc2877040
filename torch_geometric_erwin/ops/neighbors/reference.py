r"""Nearest neighbours by comparing all pairs of images: the definition."""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.neighbors.problem import (
    Problem,
    squared_distance,
)


def neighbors(problem: Problem) -> tuple[Tensor, Tensor | None]:
    r"""Finds the neighbours of each query, cloud by cloud."""
    ptr, query_ptr = problem.ptr.tolist(), problem.query_ptr.tolist()
    empty = problem.id.new_empty(2 + problem.pos.size(1), 0)
    found = [empty]
    for i in range(len(ptr) - 1):
        rows, cols = (slice(*p[i:i + 2]) for p in (query_ptr, ptr))
        if rows.start < rows.stop and cols.start < cols.stop:
            found.append(cloud_neighbors(problem, i, rows, cols))
    query, neighbor, *shift = torch.cat(found, dim=1)
    return problem.result(query, neighbor, torch.stack(shift, dim=1))


def cloud_neighbors(p: Problem, cloud: int, rows: slice,
                    cols: slice) -> Tensor:
    r"""Rows of queries, neighbours and shifts, nearest first, ties by
    number, then by shift.
    """
    if p.cells is None or not bool(p.cells.vectors[cloud].any()):
        zero = p.id.new_zeros(1, p.pos.size(1))
        return compare(p, cloud, rows, cols, zero)[0]
    reach = float(p.cells.vectors[cloud].norm(dim=1).max())
    if p.k is None:
        reach = float(p.squared_radius().sqrt())
    while True:
        images = list_images(p, cloud, rows, cols, reach)
        found, farthest = compare(p, cloud, rows, cols, images)
        if p.k is None or min(farthest,
                              float(p.squared_radius().sqrt())) <= reach:
            return found
        reach *= 2


def list_images(p: Problem, cloud: int, rows: slice, cols: slice,
                reach: float) -> Tensor:
    r"""All translations, as numbers of short vectors, that bring points to
    within a distance.
    """
    most = most_numbers(p, cloud, rows, cols, reach)
    return torch.cartesian_prod(*(
        torch.arange(-n, n + 1, device=p.pos.device)
        for n in most.tolist())).view(-1, most.numel())


def most_numbers(p: Problem, cloud: int, rows: slice, cols: slice,
                 reach: float) -> Tensor:
    assert p.cells is not None
    apart = (p.query[rows][:, None] - p.pos[cols]).double().norm(dim=2).max()
    dual = p.cells.dual[cloud].norm(dim=1)
    return ((reach + apart) * dual * 1.001 + 1).where(dual > 0, 0.).long()


def compare(p: Problem, cloud: int, rows: slice, cols: slice,
            images: Tensor) -> tuple[Tensor, float]:
    r"""The neighbours among some images, and how far the last of each are,
    at most.
    """
    neighbor, by_id = p.id[cols].sort()
    which = images.new_full((len(images), ), cloud)
    shift, translation = images, None
    if p.cells is not None:
        shift = p.cells.shifts(which, images)
        for axis in reversed(range(shift.size(1))):  # sorts by all of them
            order = shift[:, axis].sort(stable=True).indices
            shift, images = shift[order], images[order]
        translation = p.cells.translate(which, images, p.pos.dtype)
    square = squared_distance(p.pos[cols][by_id][:, None],
                              p.query[rows][:, None, None],
                              translation).flatten(1)
    found = square <= p.squared_radius().to(square.device)
    if p.excludes:
        zero = ~shift.any(1)
        same = p.query_id[rows, None, None] == neighbor[:, None]
        found &= ~(same & zero).flatten(1)
    # What is not found comes last, after distances that overflowed to inf.
    order = square.argsort(dim=1, stable=True)
    late = (~found).gather(1, order).int().argsort(dim=1, stable=True)
    order = order.gather(1, late)[:, :p.k]
    far = square.gather(1, order).max() if order.size(1) == p.k else None
    row, col = found.gather(1, order).nonzero(as_tuple=True)
    at = order[row, col]
    near = neighbor[at // len(images)]
    return torch.cat([torch.stack([p.query_id[rows][row], near]),
                      shift[at % len(images)].t()]), float(
                          'inf' if far is None else far**0.5)
