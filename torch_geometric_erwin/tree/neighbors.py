r"""Neighbour search on the ball tree."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import build_tree
from torch_geometric_erwin.ops.neighbors import neighbors
from torch_geometric_erwin.ops.neighbors.cells import Cells
from torch_geometric_erwin.ops.neighbors.leaves import cut_leaves
from torch_geometric_erwin.tree.checks import (
    check_box,
    check_finite,
    check_pos,
)
from torch_geometric_erwin.tree.clouds import group_clouds

LEAF_SIZE = 16

Box = Tensor | Sequence[Any] | float
Pbc = Tensor | Sequence[Any] | bool


def knn_graph(
    pos: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    flow: str = 'source_to_target',
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
    *,
    box: Box | None = None,
    pbc: Pbc | None = None,
    return_shift: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Connects each point to its :obj:`k` nearest neighbors of the same
    cloud, exactly.

    Arguments and result are those of
    :func:`torch_geometric.nn.knn_graph`. Edges are sorted by the center,
    then by distance, then by the neighbor, then by its image's shift. A
    cloud of fewer than :obj:`k` other points connects all of them. In a
    periodic cell each image of a point, also of the center itself, is a
    neighbor of its own.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        k: The number of neighbors.
        batch: The cloud of each point, shape :math:`(N)`, in any order.
            (default: :obj:`None`)
        loop: Whether a point is its own neighbor, too; its other images
            always may be. (default: :obj:`False`)
        flow: :obj:`"source_to_target"` puts the neighbors in the first row,
            :obj:`"target_to_source"` in the second.
            (default: :obj:`"source_to_target"`)
        cosine: Whether to compare directions instead of positions.
            (default: :obj:`False`)
        num_workers: Without effect; the search uses
            :func:`torch.get_num_threads` threads.
        batch_size: The number of clouds. (default: as :obj:`batch` says)
        box: The periodic cell: one edge for all directions, edges, shape
            :math:`(D)` or :math:`(B, D)`, or any vectors that span it, as
            rows, shape :math:`(D, D)`, :math:`(1, D, D)` or
            :math:`(B, D, D)`. Positions may lie outside of it.
            (default: :obj:`None`)
        pbc: Which directions are periodic, a boolean or shape :math:`(D)`
            or :math:`(B, D)`. (default: :obj:`None`, all of a :obj:`box`)
        return_shift: Whether to return where the images are, too.
            (default: :obj:`False`)

    Returns:
        The edges, shape :math:`(2, E)`. With :obj:`return_shift`, also
        whole numbers of the cell's vectors, shape :math:`(E, D)`, so that
        :obj:`pos[edge_index[0]] + shift @ cell - pos[edge_index[1]]` are the
        vectors from the points in the second row to the images of those in
        the first, whatever the :obj:`flow`, where :obj:`cell` are the
        vectors, or the edges as a diagonal matrix. Without a :obj:`box` all
        shifts are zero.

    Raises:
        ValueError: If an argument has a wrong shape, type or value.
    """
    points = _grow(pos, batch, batch_size, _Box(box, pbc), cosine)
    return _search(points, None, _check_k(k), None, loop, _center_row(flow),
                   return_shift)


def radius_graph(
    pos: Tensor,
    r: float,
    batch: Tensor | None = None,
    loop: bool = False,
    max_num_neighbors: int | None = None,
    flow: str = 'source_to_target',
    num_workers: int = 1,
    batch_size: int | None = None,
    *,
    box: Box | None = None,
    pbc: Pbc | None = None,
    return_shift: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Connects each point to all points of the same cloud within a
    distance of :obj:`r`, exactly.

    Arguments and result are those of
    :func:`torch_geometric.nn.radius_graph`, but nothing is cut off unless
    asked for. Edges are sorted as in :func:`knn_graph`.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        r: The largest distance, in the units of :obj:`pos`.
        batch: The cloud of each point, shape :math:`(N)`, in any order.
            (default: :obj:`None`)
        loop: As in :func:`knn_graph`. (default: :obj:`False`)
        max_num_neighbors: Keep only so many nearest neighbors.
            (default: :obj:`None`, all of them)
        flow: As in :func:`knn_graph`.
        num_workers: Without effect; the search uses
            :func:`torch.get_num_threads` threads.
        batch_size: The number of clouds. (default: as :obj:`batch` says)
        box: As in :func:`knn_graph`; :obj:`r` may be longer than the cell.
        pbc: As in :func:`knn_graph`.
        return_shift: As in :func:`knn_graph`.

    Returns:
        The edges, shape :math:`(2, E)`, and shifts as in :func:`knn_graph`.

    Raises:
        ValueError: If an argument has a wrong shape, type or value.
    """
    points = _grow(pos, batch, batch_size, _Box(box, pbc))
    most = _check_most(max_num_neighbors)
    return _search(points, None, most, _check_r(r), loop, _center_row(flow),
                   return_shift)


def knn(
    x: Tensor,
    y: Tensor,
    k: int,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
    *,
    box: Box | None = None,
    pbc: Pbc | None = None,
    return_shift: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Finds for each point of :obj:`y` the :obj:`k` nearest points of
    :obj:`x` in the same cloud, exactly.

    Arguments and result are those of :func:`torch_geometric.nn.knn`.

    Args:
        x: Positions to search among, shape :math:`(N, D)`.
        y: Positions to search for, shape :math:`(M, D)`.
        k: The number of neighbors.
        batch_x: The cloud of each point of :obj:`x`, shape :math:`(N)`.
        batch_y: The cloud of each point of :obj:`y`, shape :math:`(M)`.
        cosine: As in :func:`knn_graph`.
        num_workers: Without effect.
        batch_size: The number of clouds.
        box: As in :func:`knn_graph`.
        pbc: As in :func:`knn_graph`.
        return_shift: As in :func:`knn_graph`.

    Returns:
        Pairs of a point of :obj:`y` and one of :obj:`x`, shape
        :math:`(2, E)`, sorted by the former, then by distance, the
        latter and its image's shift. With :obj:`return_shift`, also shifts,
        shape :math:`(E, D)`, so that
        :obj:`x[pairs[1]] + shift @ cell - y[pairs[0]]` are the vectors from
        the points of :obj:`y` to the images of those of :obj:`x`.

    Raises:
        ValueError: If an argument has a wrong shape, type or value.
    """
    points, queries = _grow_both(x, y, batch_x, batch_y, batch_size,
                                 _Box(box, pbc), cosine)
    return _search(points, queries, _check_k(k), None, True, 0, return_shift)


def radius(
    x: Tensor,
    y: Tensor,
    r: float,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    max_num_neighbors: int | None = None,
    num_workers: int = 1,
    batch_size: int | None = None,
    *,
    box: Box | None = None,
    pbc: Pbc | None = None,
    return_shift: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Finds for each point of :obj:`y` all points of :obj:`x` in the same
    cloud within a distance of :obj:`r`, exactly.

    Arguments and result are those of :func:`torch_geometric.nn.radius`, but
    nothing is cut off unless asked for.

    Args:
        x: Positions to search among, shape :math:`(N, D)`.
        y: Positions to search for, shape :math:`(M, D)`.
        r: The largest distance, in the units of the positions.
        batch_x: The cloud of each point of :obj:`x`, shape :math:`(N)`.
        batch_y: The cloud of each point of :obj:`y`, shape :math:`(M)`.
        max_num_neighbors: Keep only so many nearest neighbors.
            (default: :obj:`None`, all of them)
        num_workers: Without effect.
        batch_size: The number of clouds.
        box: As in :func:`knn_graph`.
        pbc: As in :func:`knn_graph`.
        return_shift: As in :func:`knn_graph`.

    Returns:
        Pairs of a point of :obj:`y` and one of :obj:`x`, shape
        :math:`(2, E)`, sorted by the former, then by distance, the
        latter and its image's shift. With :obj:`return_shift`, also shifts,
        shape :math:`(E, D)`, so that
        :obj:`x[pairs[1]] + shift @ cell - y[pairs[0]]` are the vectors from
        the points of :obj:`y` to the images of those of :obj:`x`.

    Raises:
        ValueError: If an argument has a wrong shape, type or value.
    """
    points, queries = _grow_both(x, y, batch_x, batch_y, batch_size,
                                 _Box(box, pbc))
    most = _check_most(max_num_neighbors)
    return _search(points, queries, most, _check_r(r), True, 0, return_shift)


class _Points(NamedTuple):
    r"""Points in the order of their tree.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        id: The number of each point, shape :math:`(N)`.
        ptr: Where each cloud begins, shape :math:`(B + 1)`.
        leaf_ptr: Where each leaf begins, shape :math:`(L + 1)`.
        cloud_leaf: Where each cloud's leaves begin, shape :math:`(B + 1)`.
        cells: The periodic cells.
        moved: How many cells were subtracted from each point, by its
            number, shape :math:`(N, D)`.
    """
    pos: Tensor
    id: Tensor
    ptr: Tensor
    leaf_ptr: Tensor
    cloud_leaf: Tensor
    cells: Cells | None
    moved: Tensor | None


class _Box(NamedTuple):
    r"""The periodic cells as given, or as checked before."""
    box: Box | None
    pbc: Pbc | None = None
    checked: bool = False

    def cells(self, pos: Tensor, num_clouds: int) -> Cells | None:
        if self.box is None:
            if self.pbc is not None:
                raise ValueError("Expected 'box' to be given with 'pbc' (got "
                                 "None)")
            return None
        box = self.box
        if not self.checked:
            box = check_box(box, pos, num_clouds, self.pbc)
        assert isinstance(box, Tensor)
        return Cells.of_box(box)


def tree_neighbors(pos: Tensor, k: int, batch: Tensor, loop: bool,
                   num_clouds: int,
                   box: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Neighbors of a tree's points, and the shifts of their images; see
    :func:`knn_graph`.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        k: The number of neighbors.
        batch: The cloud of each point, shape :math:`(N)`.
        loop: Whether a point is its own neighbor, too.
        num_clouds: The number of clouds.
        box: What :func:`check_box` returned.
    """
    points = _grow(pos, batch, num_clouds, _Box(box, checked=True))
    found = _search(points, None, _check_k(k), None, loop, 1, True)
    assert isinstance(found, tuple)
    return found


def _search(points: _Points, queries: _Points | None, k: int | None,
            r: float | None, loop: bool, row: int,
            shifts: bool) -> Tensor | tuple[Tensor, Tensor]:
    edges, shift = neighbors(
        points.pos,
        points.leaf_ptr,
        points.cloud_leaf,
        points.id,
        k=k,
        r=r,
        query=None if queries is None else queries.pos,
        query_ptr=None if queries is None else queries.ptr,
        query_id=None if queries is None else queries.id,
        cells=points.cells,
        loop=loop,
        query_row=row,
        shifts=shifts,
        moved=points.moved,
        moved_query=None if queries is None else queries.moved,
    )
    return edges if shift is None else (edges, shift)


def _grow(
    pos: Tensor,
    batch: Tensor | None,
    batch_size: int | None,
    box: _Box,
    cosine: bool = False,
    name: str = 'pos',
) -> _Points:
    r"""Builds a tree of small leaves."""
    check_pos(pos, name)
    pos = pos.detach()
    if pos.dtype not in (torch.float32, torch.float64):
        pos = pos.float()
    # The builder checks what it is given, and says 'pos'.
    if name != 'pos' or cosine:
        check_finite(pos, name)
    if cosine:
        pos = _directions(pos, name)
    batch, ptr, order = group_clouds(pos, batch, None)
    ptr = _pad_clouds(ptr, batch_size)
    cells, moved = box.cells(pos, ptr.numel() - 1), None
    if cells is not None and pos.size(0) > 0:
        pos, moved = cells.wrap(pos, batch)
        _check_size(pos, cells, name)
    slots = build_tree(pos if order is None else pos[order], ptr, [LEAF_SIZE],
                       [], [0.], box=None, order=order)[0]
    rows, id, leaf_ptr = cut_leaves(pos, slots, LEAF_SIZE)
    leaves = (ptr.diff() + LEAF_SIZE - 1) // LEAF_SIZE
    cloud_leaf = torch.nn.functional.pad(leaves.cumsum(0), (1, 0))
    return _Points(rows, id, ptr, leaf_ptr, cloud_leaf, cells, moved)


def _grow_both(
    x: Tensor,
    y: Tensor,
    batch_x: Tensor | None,
    batch_y: Tensor | None,
    batch_size: int | None,
    box: _Box,
    cosine: bool = False,
) -> tuple[_Points, _Points]:
    check_pos(x, 'x')
    check_pos(y, 'y')
    if x.size(1) != y.size(1) or x.dtype != y.dtype or x.device != y.device:
        raise ValueError(
            f"Expected 'x' and 'y' to agree in dimension, type and device "
            f"(got {x.size(1)}, {x.dtype}, {x.device} and {y.size(1)}, "
            f"{y.dtype}, {y.device})")
    if batch_size is None:
        batch_size = max((int(b.max()) + 1 for b in (batch_x, batch_y)
                          if b is not None and b.numel() > 0), default=1)
    return (_grow(x, batch_x, batch_size, box, cosine, 'x'),
            _grow(y, batch_y, batch_size, box, cosine, 'y'))


def _check_size(pos: Tensor, cells: Cells, name: str) -> None:
    r"""Squares of distances must neither overflow nor vanish, or no search
    among images would end.
    """
    info = torch.finfo(pos.dtype)
    low, high = (info.tiny**0.5 * 2**10, info.max**0.5 / 2**10)
    if cells.lengths[0] < low or cells.lengths[1] > high:
        raise ValueError(f"Expected 'box' to have edges between {low:.0e} "
                         f"and {high:.0e} for {pos.dtype} (got lengths from "
                         f"{cells.lengths[0]} to {cells.lengths[1]})")
    if cells.full or not cells.lengths[1]:  # or nothing is periodic
        return
    if float(pos.abs().max()) > high:
        raise ValueError(f"Expected '{name}' to be below {high:.0e} in "
                         f"directions that are not periodic, for {pos.dtype} "
                         f"(got {float(pos.abs().max())})")


def _pad_clouds(ptr: Tensor, batch_size: int | None) -> Tensor:
    r"""Appends empty clouds."""
    if batch_size is None:
        return ptr
    missing = batch_size - (ptr.numel() - 1)
    if missing < 0:
        raise ValueError(f"Expected 'batch_size' to be at least the number "
                         f"of clouds, {ptr.numel() - 1} (got {batch_size})")
    return torch.cat([ptr, ptr[-1:].expand(missing)])


def _directions(pos: Tensor, name: str) -> Tensor:
    length = torch.linalg.vector_norm(pos, dim=1, keepdim=True)
    if not bool((length > 0).all()):
        raise ValueError(f"Expected '{name}' to have no zero vector when "
                         f"'cosine' is set (got one)")
    return pos / length


def _center_row(flow: str) -> int:
    if flow not in ('source_to_target', 'target_to_source'):
        raise ValueError(f"Expected 'flow' to be 'source_to_target' or "
                         f"'target_to_source' (got {flow!r})")
    return 1 if flow == 'source_to_target' else 0


def _check_k(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"Expected 'k' to be a positive integer (got {k!r})")
    return k


def _check_most(most: int | None) -> int | None:
    if most is not None and (not isinstance(most, int) or most < 1):
        raise ValueError(f"Expected 'max_num_neighbors' to be a positive "
                         f"integer or None (got {most!r})")
    return most


def _check_r(r: float) -> float:
    r = float(r)
    if not r >= 0 or r == float('inf'):
        raise ValueError(f"Expected 'r' to be a finite distance of at least "
                         f"zero (got {r})")
    return r
