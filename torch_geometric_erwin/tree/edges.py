r"""Edges between a tree's points: vectors along them, in periodic cells, too,
and what layers on the same edges share.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_geometric_erwin.ops.distance import at_least_float
from torch_geometric_erwin.ops.message_passing import EdgeLists
from torch_geometric_erwin.ops.periodic import (
    nearest_image,
    reduce_lattice,
    translations,
)
from torch_geometric_erwin.tree.knn_op import tree_knn_graph
from torch_geometric_erwin.tree.structure import Structure


class TreeEdges(NamedTuple):
    r"""What :meth:`~torch_geometric_erwin.BallTree.edges` returns: what layers
    that pass messages along the same edges would compute again and again.

    Args:
        edge_index: Sources and targets, shape :math:`(2, E)`.
        vectors: From targets to sources, shape :math:`(E, D)`.
        lists: The edges of each target and of each source.
    """
    edge_index: Tensor
    vectors: Tensor
    lists: EdgeLists


def tree_edges(tree: Structure, edge_index: Tensor, edge_shift: Tensor | None,
               source: Structure | None) -> TreeEdges:
    r"""See :meth:`BallTree.edges`."""
    is_simple = source is None and tree.virtual == 'masked'
    order = _by_slot(tree) if is_simple else None
    lists = EdgeLists.of(edge_index, (source or tree).num_points,
                         tree.num_points, order)
    vectors = edge_vectors(tree, edge_index, edge_shift, source)
    return TreeEdges(edge_index, vectors, lists)


def _by_slot(tree: Structure) -> Tensor:
    r"""Returns the points in the order of their slots, where those of a ball
    follow each other.
    """
    inverse, mask = tree.levels[0].inverse[0], tree.levels[0].mask
    rank = inverse if mask is None else (mask.cumsum(0) - 1)[inverse]
    point = torch.arange(rank.size(0), device=rank.device)
    return torch.empty_like(rank).scatter_(0, rank, point)


def edge_vectors(tree: Structure, edge_index: Tensor,
                 edge_shift: Tensor | None,
                 source_tree: Structure | None = None) -> Tensor:
    r"""See :meth:`BallTree.edge_vectors`."""
    pos, other = at_least_float(tree.pos), source_tree or tree
    source, target = edge_index
    # Gradients of rows that are selected add up faster than those of indexed.
    vector = at_least_float(other.pos).index_select(
        0, source) - pos.index_select(0, target)
    _expect_same_box(tree, other)
    if tree.box is None or tree.cell is None:
        _expect_no_shift(edge_shift)
        return vector
    cell, box = tree.cell, tree.box
    if torch.compiler.is_compiling() or box.size(0) > 1:
        cloud = tree.batch[target]
        cell, box = cell[cloud], box[cloud]
    if edge_shift is None:
        return nearest_image(vector, cell)
    vector = vector + translations(edge_shift.to(vector.dtype), box)
    # Shifts are those of positions before they were wrapped.
    for image, end, sign in (other.image, source, 1), (tree.image, target,
                                                       -1):
        if image is not None:
            vector = vector + translations(sign * image[end], cell)
    return vector


def _expect_same_box(tree: Structure, source: Structure) -> None:
    a, b = tree.box, source.box
    if source is not tree and ((a is None) != (b is None) or (
            a is not None and b is not None and not a.equal(b))):
        raise ValueError("Expected sources and targets to have the same "
                         "periodic cells (got different ones)")


def _expect_no_shift(edge_shift: Tensor | None) -> None:
    if edge_shift is not None and not torch.compiler.is_compiling() and bool(
            edge_shift.any()):
        raise ValueError("Expected 'edge_shift' to be zero for a tree that "
                         "is not periodic (got shifts)")


def balls_as_graph(tree: Structure, partition: int | None,
                   loop: bool) -> Tensor:
    r"""See :meth:`BallTree.edge_index`."""
    if tree.virtual == 'copy':
        raise ValueError("Expected 'virtual' to be 'masked' to take the "
                         "balls as a graph of points (got 'copy')")
    if partition is None:
        parts = [balls_as_graph(tree, i, loop)
                 for i in range(tree.num_orientations)]
        return torch.cat(parts, dim=1)
    part = tree.partition(partition)
    index, mask = part.index, part.mask
    slots = torch.arange(tree.num_slots, device=tree.device)
    slots = slots.view(-1, tree.ball_size)
    size = (len(slots), tree.ball_size, tree.ball_size)
    target = slots.unsqueeze(2).expand(size).flatten()
    source = slots.unsqueeze(1).expand(size).flatten()
    keep = source != target if not loop else None
    if mask is not None:
        real = mask[source] & mask[target]
        keep = real if keep is None else keep & real
    if keep is not None:
        source, target = source[keep], target[keep]
    return torch.stack([index[source], index[target]])


def knn_graph(tree: Structure, k: int, loop: bool,
              return_shift: bool) -> Any:
    r"""See :meth:`BallTree.knn_graph`."""
    box = None if tree.box is None else tree.box.detach()
    edge_index, shift = tree_knn_graph(tree.pos.detach(), tree.batch, k, loop,
                                       tree.num_clouds, box)
    if not return_shift:
        return edge_index
    if box is None:
        return edge_index, None
    return edge_index, shift_to_caller(tree, edge_index, shift)


def shift_to_caller(tree: Structure, edge_index: Tensor,
                    shift: Tensor) -> Tensor:
    r"""Turns shifts of the tree's positions into those of the positions
    before they were wrapped.
    """
    if tree.image is None or tree.box is None:
        return shift
    image = tree.image
    if tree.box.dim() == 3:
        whole = reduce_lattice(tree.box.detach())[0]
        image = (image.unsqueeze(1) @ whole[tree.batch]).squeeze(1)
    image = image.round().long()
    return shift - image[edge_index[0]] + image[edge_index[1]]
