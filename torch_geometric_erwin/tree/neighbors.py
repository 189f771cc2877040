r"""Neighbour search on the ball tree."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import build_tree
from torch_geometric_erwin.ops.neighbors import neighbors
from torch_geometric_erwin.ops.neighbors.leaves import cut_leaves
from torch_geometric_erwin.ops.periodic import wrap
from torch_geometric_erwin.tree.build import group_clouds
from torch_geometric_erwin.tree.checks import (
    check_box,
    check_finite,
    check_pos,
)

LEAF_SIZE = 16

Box = Tensor | Sequence[float] | float


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
) -> Tensor:
    r"""Connects each point to its :obj:`k` nearest neighbors of the same
    cloud, exactly.

    Arguments and result are those of
    :func:`torch_geometric.nn.knn_graph`. Edges are sorted by the center,
    then by distance, then by the neighbor. A cloud of fewer than
    :obj:`k` other points connects all of them.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        k: The number of neighbors.
        batch: The cloud of each point, shape :math:`(N)`, in any order.
            (default: :obj:`None`)
        loop: Whether a point is its own neighbor, too.
            (default: :obj:`False`)
        flow: :obj:`"source_to_target"` puts the neighbors in the first row,
            :obj:`"target_to_source"` in the second.
            (default: :obj:`"source_to_target"`)
        cosine: Whether to compare directions instead of positions.
            (default: :obj:`False`)
        num_workers: Without effect; the search uses
            :func:`torch.get_num_threads` threads.
        batch_size: The number of clouds. (default: as :obj:`batch` says)
        box: The edges of the periodic cell; neighbors are then found at
            their nearest images. See :meth:`BallTree.build`.
            (default: :obj:`None`)

    Returns:
        The edges, shape :math:`(2, E)`.

    Raises:
        ValueError: If an argument has a wrong shape, type or value.
    """
    points = _grow(pos, batch, batch_size, box, cosine)
    return _search(points, None, _check_k(k), None, loop, _center_row(flow))


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
) -> Tensor:
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
        loop: Whether a point is its own neighbor, too.
            (default: :obj:`False`)
        max_num_neighbors: Keep only so many nearest neighbors.
            (default: :obj:`None`, all of them)
        flow: As in :func:`knn_graph`.
        num_workers: Without effect; the search uses
            :func:`torch.get_num_threads` threads.
        batch_size: The number of clouds. (default: as :obj:`batch` says)
        box: As in :func:`knn_graph`; a point counts once, at its nearest
            image.

    Returns:
        The edges, shape :math:`(2, E)`.

    Raises:
        ValueError: If an argument has a wrong shape, type or value.
    """
    points = _grow(pos, batch, batch_size, box)
    most = _check_most(max_num_neighbors)
    return _search(points, None, most, _check_r(r), loop, _center_row(flow))


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
) -> Tensor:
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

    Returns:
        Pairs of a point of :obj:`y` and one of :obj:`x`, shape
        :math:`(2, E)`, sorted by the former, then by distance.

    Raises:
        ValueError: If an argument has a wrong shape, type or value.
    """
    points, queries = _grow_both(x, y, batch_x, batch_y, batch_size, box,
                                 cosine)
    return _search(points, queries, _check_k(k), None, True, 0)


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
) -> Tensor:
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
        box: As in :func:`radius_graph`.

    Returns:
        Pairs of a point of :obj:`y` and one of :obj:`x`, shape
        :math:`(2, E)`, sorted by the former, then by distance.

    Raises:
        ValueError: If an argument has a wrong shape, type or value.
    """
    points, queries = _grow_both(x, y, batch_x, batch_y, batch_size, box)
    most = _check_most(max_num_neighbors)
    return _search(points, queries, most, _check_r(r), True, 0)


class _Points(NamedTuple):
    r"""Points in the order of their tree.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        id: The number of each point, shape :math:`(N)`.
        ptr: Where each cloud begins, shape :math:`(B + 1)`.
        leaf_ptr: Where each leaf begins, shape :math:`(L + 1)`.
        cloud_leaf: Where each cloud's leaves begin, shape :math:`(B + 1)`.
        box: The periodic cells, shape :math:`(B, D)`.
    """
    pos: Tensor
    id: Tensor
    ptr: Tensor
    leaf_ptr: Tensor
    cloud_leaf: Tensor
    box: Tensor | None


def _search(points: _Points, queries: _Points | None, k: int | None,
            r: float | None, loop: bool, row: int) -> Tensor:
    return neighbors(
        points.pos,
        points.leaf_ptr,
        points.cloud_leaf,
        points.id,
        k=k,
        r=r,
        query=None if queries is None else queries.pos,
        query_ptr=None if queries is None else queries.ptr,
        query_id=None if queries is None else queries.id,
        box=points.box,
        loop=loop,
        query_row=row,
    )


def _grow(
    pos: Tensor,
    batch: Tensor | None,
    batch_size: int | None,
    box: Box | None,
    cosine: bool = False,
    name: str = 'pos',
) -> _Points:
    r"""Builds a tree of small leaves."""
    check_pos(pos, name)
    pos = pos.detach()
    if pos.dtype not in (torch.float32, torch.float64):
        pos = pos.float()
    if box is not None or name != 'pos':  # the builder checks and says 'pos'
        check_finite(pos, name)
    if cosine:
        pos = _directions(pos, name)
    batch, ptr, order = group_clouds(pos, batch, None)
    ptr = _pad_clouds(ptr, batch_size)
    cell = None
    if box is not None:
        cell = check_box(box, pos, ptr.numel() - 1).contiguous()
        pos = wrap(pos, cell[batch])[0]
    slots = build_tree(pos if order is None else pos[order], ptr, [LEAF_SIZE],
                       [], [0.], box=cell, order=order)[0]
    rows, id, leaf_ptr = cut_leaves(pos, slots, LEAF_SIZE)
    leaves = (ptr.diff() + LEAF_SIZE - 1) // LEAF_SIZE
    cloud_leaf = torch.cat([leaves.new_zeros(1), leaves.cumsum(0)])
    return _Points(rows, id, ptr, leaf_ptr, cloud_leaf, cell)


def _grow_both(
    x: Tensor,
    y: Tensor,
    batch_x: Tensor | None,
    batch_y: Tensor | None,
    batch_size: int | None,
    box: Box | None,
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
