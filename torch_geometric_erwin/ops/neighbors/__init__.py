r"""Exact nearest neighbours on a tree that has been built."""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import library
from torch_geometric_erwin.ops.neighbors import cpu, search
from torch_geometric_erwin.ops.neighbors.cells import Cells
from torch_geometric_erwin.ops.neighbors.problem import Problem


def neighbors(
    pos: Tensor,
    leaf_ptr: Tensor,
    cloud_leaf: Tensor,
    id: Tensor,
    *,
    k: int | None = None,
    r: float | None = None,
    query: Tensor | None = None,
    query_ptr: Tensor | None = None,
    query_id: Tensor | None = None,
    cells: Cells | None = None,
    loop: bool = False,
    query_row: int = 1,
    shifts: bool = False,
    moved: Tensor | None = None,
    moved_query: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Finds the nearest points of the same cloud for each query.

    All points within :obj:`r` are neighbours; with :obj:`k`, the
    :obj:`k` nearest of them (fewer where there are fewer). In a periodic
    cell every image of a point counts. Edges are sorted by the query's
    number, then by squared distance, then by the neighbour's number, then by
    its image's shift. Distances are computed in the points' precision; the
    result does not depend on the tree, the device or the number of threads.

    Above its leaves the tree is implicit: a node is a range of leaves
    :math:`[a, b)`, its children are :math:`[a, m)` and :math:`[m, b)` with
    :math:`m = a + \lfloor (b - a) / 2 \rfloor`. A tree whose nodes are
    compact is fast, any other is right, too. The same holds for queries:
    neighbouring rows had better be neighbours in space.

    Args:
        pos: Points in tree order, float32 or float64,
            :math:`[N, D]`.
        leaf_ptr: Leaf :math:`l` holds the rows from :obj:`leaf_ptr[l]` to
            :obj:`leaf_ptr[l + 1]`, at least one, :math:`[L + 1]`.
        cloud_leaf: Cloud :math:`c` owns the leaves from
            :obj:`cloud_leaf[c]` to :obj:`cloud_leaf[c + 1]`,
            :math:`[B + 1]`.
        id: Original numbers of the rows, a permutation of
            :math:`0, \ldots, N - 1`, :math:`[N]`.
        k: Most neighbours of a query.
        r: Largest distance of a neighbour.
        query: Where to search, grouped by cloud, :math:`[M, D]`. By default
            the points themselves.
        query_ptr: Queries of each cloud, :math:`[B + 1]`.
        query_id: Original numbers of the queries, a permutation of
            :math:`0, \ldots, M - 1`, :math:`[M]`; by default their rows.
        cells: Each cloud's periodic cell. Points may lie anywhere; it is
            faster if they are in their cells.
        loop: Whether points may be their own neighbours where they are;
            their other images always are. Without effect when
            :obj:`query` is given.
        query_row: The row of the result that holds the queries.
        shifts: Whether to return shifts.
        moved: How many cells, in users' vectors, had been subtracted from
            each point, by its number; shifts are for where it was before,
            :math:`[N, D]`.
        moved_query: The same of the queries, :math:`[M, D]`. By default,
            where the queries are the points, :obj:`moved`.

    Returns:
        The edges as numbers of queries and points, int64, :math:`[2, E]`,
        and, if asked for, where the points' images are, in cells along the
        users' vectors, int64, :math:`[E, D]`. Where points are searched
        for themselves, the shift is that of the point in the first row, as
        seen from the one in the second.

    Raises:
        ValueError: If an argument does not fit.
    """
    itself = query is None
    ptr = leaf_ptr[cloud_leaf]
    if query is None:
        query, query_ptr, query_id = pos, ptr, id
        moved_query = moved
    check(pos, leaf_ptr, cloud_leaf, id, query, query_ptr, k, r, cells)
    if query_id is None:
        query_id = torch.arange(query.size(0), device=pos.device)
    assert query_ptr is not None
    problem = Problem(
        pos.detach().contiguous(),
        leaf_ptr.contiguous(),
        cloud_leaf.contiguous(),
        id.contiguous(),
        query.detach().contiguous(),
        query_ptr.contiguous(),
        query_id.contiguous(),
        k,
        r,
        cells,
        itself,
        loop,
        query_row,
        shifts,
        moved,
        moved_query,
    )
    if pos.device.type == 'cpu' and library() is not None:
        return cpu.neighbors(problem)
    return search.neighbors(problem)


def check(
    pos: Tensor,
    leaf_ptr: Tensor,
    cloud_leaf: Tensor,
    id: Tensor,
    query: Tensor,
    query_ptr: Tensor | None,
    k: int | None,
    r: float | None,
    cells: Cells | None,
) -> None:
    check_points(pos, query, cells, cloud_leaf.numel() - 1)
    if k is None and r is None:
        raise ValueError("Expected 'k' or 'r' to be given (got neither)")
    if k is not None and k < 1:
        raise ValueError(f"Expected 'k' to be positive (got {k})")
    if r is not None and not r >= 0:
        raise ValueError(f"Expected 'r' not to be negative (got {r})")
    pointers = {
        'leaf_ptr': leaf_ptr,
        'cloud_leaf': cloud_leaf,
        'id': id,
        'query_ptr': query_ptr,
    }
    for name, value in pointers.items():
        if value is None or value.dtype != torch.int64 or value.dim() != 1:
            got = None if value is None else (value.dtype, tuple(value.shape))
            raise ValueError(f"Expected '{name}' to be a one-dimensional "
                             f"int64 tensor (got {got})")


def check_points(pos: Tensor, query: Tensor, cells: Cells | None,
                 num_clouds: int) -> None:
    if pos.dim() != 2 or pos.size(1) < 1:
        raise ValueError(f"Expected 'pos' to have shape [N, D] with D >= 1 "
                         f"(got {tuple(pos.shape)})")
    if pos.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"Expected 'pos' to be float32 or float64 "
                         f"(got {pos.dtype})")
    if pos.size(0) >= 2**31:
        raise ValueError(f"Expected 'pos' to have fewer than 2^31 rows "
                         f"(got {pos.size(0)})")
    if query.dim() != 2 or query.size(1) != pos.size(1):
        raise ValueError(f"Expected 'query' to have shape [M, {pos.size(1)}] "
                         f"(got {tuple(query.shape)})")
    if query.dtype != pos.dtype or query.device != pos.device:
        raise ValueError(f"Expected 'query' to be {pos.dtype} on "
                         f"{pos.device} (got {query.dtype} on "
                         f"{query.device})")
    shape = [num_clouds, pos.size(1), pos.size(1)]
    if cells is not None and list(cells.vectors.shape) != shape:
        raise ValueError(f"Expected 'cells' to have vectors of shape {shape} "
                         f"(got {list(cells.vectors.shape)})")
