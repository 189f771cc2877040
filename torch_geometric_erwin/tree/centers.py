r"""Centers and radii of balls at any level."""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.centers import group_centers
from torch_geometric_erwin.ops.distance import at_least_float
from torch_geometric_erwin.tree.groups import coarse_point
from torch_geometric_erwin.tree.offsets import (
    ball_offsets,
    child_offsets,
    coarsen,
    unwrap,
)
from torch_geometric_erwin.tree.structure import Structure, TreeT


def radii(tree: Structure, level: int) -> Tensor:
    r"""See :meth:`BallTree.radii`."""
    center, ball, offset = measure(tree, level)
    square = offset.square().sum(1)
    far = square.new_zeros(len(center)).scatter_reduce(
        0, ball, square, 'amax', include_self=True)
    positive = far > 0  # the root has no derivative at zero
    return torch.where(positive, far, 1.).sqrt() * positive


def measure(tree: Structure, level: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the centers of a level's balls, and for each point its
    ball and its offset from there.
    """
    coarse, slot, offset = descend(tree, level)
    ball, last = slot // coarse.ball_size, coarse.levels[0]
    center, _ = group_centers(unwrap(coarse, 0), coarse.mass, last.index[0],
                              last.mask, coarse.ball_size)
    if tree.virtual == 'masked':
        return center, ball, offset
    # Copies of points counted so far.
    mass = torch.ones_like(offset[:, 0]) if tree.mass is None else (
        tree.mass)
    total = mass.new_zeros(len(center)).index_add_(0, ball, mass)
    share = (mass / total[ball]).unsqueeze(1)
    mean = torch.zeros_like(center).index_add(0, ball, offset * share)
    return center + mean, ball, offset - mean[ball]


def descend(tree: TreeT, level: int) -> tuple[TreeT, Tensor, Tensor]:
    r"""Returns the tree of a level, and for each point of this one its
    slot there, and its offset from the center of its ball there.
    """
    if not 0 <= level < tree.num_levels:
        raise ValueError(f"Expected 'level' to be in [0, {tree.num_levels}) "
                         f"(got {level})")
    slot = tree.levels[0].inverse[0]
    offset = torch.zeros_like(at_least_float(tree.pos))
    point = torch.arange(tree.num_points, device=tree.device)
    for _ in range(level):
        stride = tree.strides[0]
        up = coarse_point(tree, slot)
        offset = offset + child_offsets(tree)[up, slot % stride]
        tree, point = coarsen(tree), up
        slot = tree.levels[0].inverse[0][point]
    return tree, slot, offset + ball_offsets(tree, 0)[point]
