r"""Positions relative to the centers of balls."""

from torch import Tensor

from torch_geometric_erwin.ops.build_tree.centers import group_centers
from torch_geometric_erwin.ops.distance import at_least_float
from torch_geometric_erwin.ops.periodic import nearest_image
from torch_geometric_erwin.tree.ball_tree import BallTree, Partition


def ball_offsets(tree: BallTree, partition: int) -> Tensor:
    r"""See :meth:`BallTree.offsets`."""
    part, size = tree.partition(partition), tree.ball_size
    ball = part.inverse // size
    pos, cell = at_least_float(tree.pos), None
    if tree.box is not None:
        cell = tree.box[tree.batch]
        pos = _unwrap(pos, part, size, ball, cell)
    centers, _ = group_centers(pos, tree.mass, part.index, part.mask, size)
    return nearest_image(pos - centers[ball], cell)


def _unwrap(pos: Tensor, part: Partition, size: int, ball: Tensor,
            cell: Tensor) -> Tensor:
    r"""Takes each point's image next to the middle slot of its ball: a
    shifted orientation has balls that cross the cell's border.
    """
    middle = part.index[size // 2::size]
    anchor = pos[middle][ball]
    return anchor + nearest_image(pos - anchor, cell)
