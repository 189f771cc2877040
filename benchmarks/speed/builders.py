r"""The tree builders that are compared, each from the same inputs."""

from collections.abc import Callable

import balltree
import torch
from scipy.spatial import cKDTree
from sklearn.neighbors import BallTree as SklearnBallTree
from torch import Tensor

from torch_geometric_erwin import BallTree

BALL_SIZE = 256
STRIDES = (2, 2, 2)


def clouds(num_clouds: int, num_points: int, seed: int = 0,
           ) -> tuple[Tensor, Tensor, Tensor]:
    r"""Clouds of uniform points in the unit cube: :obj:`pos`, :obj:`batch`
    and :obj:`ptr`.
    """
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(num_clouds * num_points, 3, generator=generator)
    number = torch.arange(num_clouds)
    ptr = torch.arange(num_clouds + 1) * num_points
    return pos, number.repeat_interleave(num_points), ptr


def ours(pos: Tensor, batch: Tensor) -> BallTree:
    return BallTree.build(pos, batch, ball_size=BALL_SIZE, rotations=(0.,))


def ours_ptr(pos: Tensor, ptr: Tensor) -> BallTree:
    return BallTree.build(pos, ptr=ptr, ball_size=BALL_SIZE, rotations=(0.,))


def ours_rotated(pos: Tensor, batch: Tensor) -> BallTree:
    return BallTree.build(pos, batch, ball_size=BALL_SIZE, strides=STRIDES,
                          rotations=(0., 45.))


def peer(pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    return balltree.build_balltree(pos, batch)


def peer_rotated(pos: Tensor, batch: Tensor,
                 ) -> tuple[Tensor, Tensor, list[Tensor]]:
    return balltree.build_balltree_with_rotations(
        pos, batch, list(STRIDES), [BALL_SIZE] * (len(STRIDES) + 1), 45.)


BUILDERS: dict[str, Callable] = {
    'ours': ours,
    'balltree-erwin': peer,
    'ours, 4 levels, rotated': ours_rotated,
    'balltree-erwin, 4 levels, rotated': peer_rotated,
}


def per_cloud(pos: Tensor, ptr: Tensor, build: Callable) -> Callable:
    r"""A builder of one tree per cloud, for peers that know no batch. They
    get float64, which they would convert to, ahead of time.
    """
    parts = [part.double().numpy() for part in
             pos.split(ptr.diff().tolist())]
    return lambda: [build(part) for part in parts]


def sklearn_tree(pos: Tensor, ptr: Tensor) -> Callable:
    return per_cloud(pos, ptr, lambda x: SklearnBallTree(x, leaf_size=2))


def scipy_tree(pos: Tensor, ptr: Tensor) -> Callable:
    return per_cloud(
        pos, ptr, lambda x: cKDTree(x, leafsize=2, balanced_tree=True))
