r"""The vectors along edges, in periodic cells, too."""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.distance import at_least_float
from torch_geometric_erwin.ops.periodic import (
    nearest_image,
    reduce_lattice,
    translations,
)
from torch_geometric_erwin.tree.ball_tree import BallTree


def edge_vectors(tree: BallTree, edge_index: Tensor,
                 edge_shift: Tensor | None) -> Tensor:
    r"""See :meth:`BallTree.edge_vectors`."""
    pos = at_least_float(tree.pos)
    source, target = edge_index
    vector = pos[source] - pos[target]
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
    if tree.image is None:
        return vector
    # Shifts are those of positions before they were wrapped.
    return vector + translations(tree.image[source] - tree.image[target],
                                 cell)


def _expect_no_shift(edge_shift: Tensor | None) -> None:
    if edge_shift is not None and not torch.compiler.is_compiling() and bool(
            edge_shift.any()):
        raise ValueError("Expected 'edge_shift' to be zero for a tree that "
                         "is not periodic (got shifts)")


def shift_to_caller(tree: BallTree, edge_index: Tensor,
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
