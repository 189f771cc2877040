r"""The correctness gate: nothing is timed before these pass."""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.speed.builders import (
    BALL_SIZE,
    clouds,
    ours,
    ours_ptr,
    ours_rotated,
    peer,
    peer_rotated,
)
from torch_geometric_erwin import BallTree, knn_graph, radius_graph


def require(condition: bool, what: str) -> None:
    if not condition:
        raise RuntimeError(f'Correctness gate: {what}')


def is_permutation(index: Tensor, size: int) -> bool:
    return torch.equal(index.sort()[0], torch.arange(size))


def check_tree(tree: BallTree, batch: Tensor) -> None:
    r"""Every level and orientation holds each point once, and each cloud
    has no more balls than it needs.
    """
    for i in range(tree.num_orientations):
        part = tree.partition(i)
        mask = part.mask
        real = part.index if mask is None else part.index[mask]
        require(is_permutation(real, tree.num_points), 'a point is missing')
        balls = part.index.view(-1, tree.ball_size)
        cloud = batch[balls]
        require(bool((cloud == cloud[:, :1]).all()), 'a ball mixes clouds')
        need = -(-tree.ptr.diff() // tree.ball_size)
        require(torch.equal(cloud[:, 0].bincount(minlength=tree.num_clouds),
                            need), 'a cloud has too many balls')
    if tree.num_levels > 1:
        coarse = tree.coarsen()
        check_tree(coarse, coarse.batch)


def check_builders() -> None:
    for size in (700, 1000, 1024):
        pos, batch, ptr = clouds(3, size)
        for tree in (ours(pos, batch), ours_ptr(pos, ptr),
                     ours_rotated(pos, batch)):
            check_tree(tree, batch)
        for index, mask, *rest in (peer(pos, batch),
                                   peer_rotated(pos, batch)):
            require(is_permutation(index[mask], len(pos)),
                    'balltree-erwin lost a point')
            for level in rest[0] if rest else []:
                require(is_permutation(level, len(level)),
                        'balltree-erwin lost a rotated leaf')


def check_same_tree() -> None:
    r"""Where nothing is virtual, every ball of every size, from pairs of
    points up, equals that of :obj:`balltree-erwin`.
    """
    pos, batch, _ = clouds(16, 4 * BALL_SIZE)
    index, other = ours(pos, batch).partition(0).index, peer(pos, batch)[0]
    size = 2
    while size <= BALL_SIZE:
        a, b = (i.view(-1, size).sort(1)[0] for i in (index, other))
        require(torch.equal(a, b), f'balls of {size} points differ')
        size *= 2


def check_knn(num_points: int = 5000, k: int = 16) -> None:
    pos, _, _ = clouds(1, num_points, seed=1)
    source, target = knn_graph(pos, k)
    require(torch.equal(target.bincount(), torch.full((num_points,), k)),
            'a point has too few neighbours')
    x = pos.double()
    ours = (x[source] - x[target]).norm(dim=1).view(num_points, k)
    theirs = cKDTree(x.numpy()).query(x.numpy(), k=k + 1)[0][:, 1:]
    close = np.allclose(ours.sort(1)[0].numpy(), theirs, rtol=1e-5, atol=0)
    require(close, 'nearest neighbours differ from those of cKDTree')
    require(bool((source != target).all()), 'a point is its own neighbour')


def check_radius(num_points: int = 5000, r: float = .09) -> None:
    r"""Edges may differ from cKDTree's only where rounding decides."""
    pos, _, _ = clouds(1, num_points, seed=2)
    x = pos.double()
    pairs = cKDTree(x.numpy()).query_pairs(r, output_type='ndarray')
    both = torch.from_numpy(np.concatenate([pairs, pairs[:, ::-1]]))
    source, target = radius_graph(pos, r)
    codes = [a * num_points + b for a, b in ((source, target), both.t())]
    require(len(codes[0].unique()) == len(codes[0]), 'an edge comes twice')
    odd, count = torch.cat(codes).unique(return_counts=True)
    odd = odd[count == 1]
    far = (x[odd // num_points] - x[odd % num_points]).norm(dim=1)
    require(bool(((far - r).abs() < 1e-6 * r).all()),
            'neighbours in a radius differ from those of cKDTree')


def gate(neighbors: bool = True) -> str:
    r"""Runs every check; returns what was checked, in words."""
    check_builders()
    check_same_tree()
    said = ('partitions are permutations with the fewest balls; pairs to '
            f'balls of {BALL_SIZE} equal those of balltree-erwin')
    if neighbors:
        check_knn()
        check_radius()
        said += '; neighbours equal those of cKDTree'
    return said
