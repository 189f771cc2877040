r"""Trees whose balls turn along with the cloud."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data

from tests.clouds import clouds, level_sizes
from tests.ops.test_build_tree import assert_same, native
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.ops.build_tree import build_tree
from torch_geometric_erwin.ops.build_tree.eigenvectors import eigenvectors
from torch_geometric_erwin.ops.build_tree.principal import principal_axes
from torch_geometric_erwin.transforms import AddBallTree

ANGLES = ([0.], [0., 45.], [30., 90.], [0., 0., 60.])
# Where some points are a billion times as far apart as others, rounding
# decides about axes.
EXACT = ('normal', 'lattice', 'duplicates', 'line', 'offset')


@native
@settings(max_examples=60, deadline=None)
@given(clouds(most=300, dims=(1, 6), shapes=EXACT), level_sizes(),
       st.sampled_from(ANGLES), st.sampled_from(['balanced', 'perfect']))
def test_cpp_equals_torch(cloud, sizes, angles, completion):
    out = [build_tree(cloud.pos, cloud.ptr, *sizes, angles, axes='principal',
                      completion=completion, backend=backend)
           for backend in ('cpp', 'torch')]
    assert_same(*out)


@native
@pytest.mark.parametrize('dim', [2, 3, 6])
def test_threads(dim):
    pos = torch.randn(40_000, dim)
    args = (pos, torch.tensor([0, 30_000, 30_001, 40_000]), [64, 64], [4],
            [0., 45.])
    threads = torch.get_num_threads()
    try:
        outs = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            outs.append(build_tree(*args, axes='principal', backend='cpp'))
    finally:
        torch.set_num_threads(threads)
    assert_same(outs[0], outs[1])
    assert_same(outs[0], outs[2])
    assert_same(outs[0], build_tree(*args, axes='principal', backend='torch'))


def turn(dim: int, seed: int) -> Tensor:
    r"""A rotation, maybe with a reflection."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(dim, dim, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(x)[0]


def balls(tree: BallTree, i: int) -> Tensor:
    r"""The points of each ball, sorted, as far as there are such."""
    part = tree.partition(i)
    point = part.index if part.mask is None else torch.where(
        part.mask, part.index, -1)
    return point.view(-1, tree.ball_size).sort(1).values


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=3),
       st.integers(2, 4), st.sampled_from([4, 16, 64]), st.integers(0, 2**31))
def test_balls_turn_along(sizes, dim, ball_size, seed):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(sum(sizes), dim, dtype=torch.float64,
                      generator=generator)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    moved = pos @ turn(dim, seed) + 10 * torch.randn(dim, generator=generator)
    trees = [BallTree.build(x, ptr=ptr, ball_size=ball_size, strides=[4],
                            axes='principal') for x in (pos, moved)]
    for a, b in zip((trees[0], trees[0].coarsen()),
                    (trees[1], trees[1].coarsen()), strict=True):
        for i in range(2):
            assert torch.equal(balls(a, i), balls(b, i))


def test_balls_of_single_precision_turn_along():
    pos = torch.randn(1000, 3)
    pos[:, 0] *= 3
    moved = pos[:, [2, 0, 1]] * torch.tensor([1., -1., -1.])
    a, b = (BallTree.build(x, ball_size=32, axes='principal')
            for x in (pos, moved))
    for i in range(2):
        assert torch.equal(balls(a, i), balls(b, i))


def test_a_cell_and_its_symmetries():
    pos, box = torch.rand(500, 3).double(), torch.tensor([1., 1.3, 0.8])
    order = [1, 2, 0]
    mirrored = pos.clone()
    mirrored[:, 0] = 1 - pos[:, 0]
    a, b = (BallTree.build(x[:, order], box=box[order], ball_size=32,
                           axes='principal') for x in (pos, mirrored))
    for i in range(2):
        assert torch.equal(balls(a, i), balls(b, i))


def test_a_line_and_its_mirror_image():
    r"""Balls are runs of the line, in other orientations, too."""
    pos = torch.randn(100, 1).abs()
    a, b = (BallTree.build(x, ball_size=8, axes='principal')
            for x in (pos, 3 - pos))
    rank = pos[:, 0].argsort().argsort()
    for i in range(2):
        assert torch.equal(balls(a, i), balls(b, i))
        for ball in balls(a, i).tolist():
            place = rank[[point for point in ball if point >= 0]]
            run = place.max() - place.min() + 1
            assert run == len(place) or i == 1  # one goes around the ends
    around = sum(int(rank[ball[ball >= 0]].max() - rank[ball[ball >= 0]].min())
                 >= 8 for ball in balls(a, 1))
    assert around <= 1


def test_splits_are_compact():
    r"""A rod that lies across the axes is cut across."""
    along = torch.tensor([1., 1., 1.])
    pos = torch.rand(64, 1) * along + 0.01 * torch.randn(64, 3)
    tree = BallTree.build(pos, ball_size=32, rotations=(0., ),
                          axes='principal')
    where = (pos @ along)[balls(tree, 0)]
    first, second = sorted(where.tolist())
    assert max(first) < min(second)


@pytest.mark.parametrize('pos', [
    torch.zeros(9, 3), torch.zeros(1, 2), torch.zeros(0, 3),
    torch.eye(3), torch.cartesian_prod(*[torch.arange(4.)] * 3),
    torch.arange(10.).unsqueeze(1) * torch.ones(3),
    torch.tensor([[1., 0], [-1, 0], [0, 1], [0, -1]])])
@pytest.mark.parametrize('backend', [pytest.param('cpp', marks=native),
                                     'torch'])
def test_axes_that_are_not_unique(pos, backend):
    r"""Some tree, and always the same, whatever the order of the points."""
    def build(pos):
        return build_tree(pos, torch.tensor([0, len(pos)]), [4], [],
                          [0., 45.], axes='principal', backend=backend)[0]

    level, order = build(pos), torch.randperm(len(pos))
    mixed = build(pos[order])
    for i in range(2):
        mask = slice(None) if level.mask is None else level.mask
        found = level.index[i][mask]
        assert torch.equal(found.sort().values, torch.arange(len(pos)))
        assert torch.equal(pos[found], pos[order][mixed.index[i][mask]])


@pytest.mark.parametrize('backend', [pytest.param('cpp', marks=native),
                                     'torch'])
def test_order_where_variances_tie(backend):
    r"""Rounding must not choose between the axes of a triangle."""
    corners, found = torch.eye(3), set()
    for order in itertools.permutations(range(3)):
        pos = corners[list(order)]
        level = build_tree(pos, torch.tensor([0, 3]), [4, 4], [2], [0., 45.],
                           axes='principal', backend=backend)[0]
        found.add(str([pos[x].tolist() for x in level.index]))
    assert len(found) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**31))
def test_eigenvectors(dim, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, dim, dim, dtype=torch.float64, generator=generator)
    x = x @ x.mT
    x = x / x.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    value, vector = eigenvectors(x)
    torch.testing.assert_close(vector @ value.diag_embed() @ vector.mT, x,
                               rtol=0, atol=1e-9)
    first, _ = principal_axes(x)
    most = torch.linalg.eigvalsh(x)[:, -1:]
    torch.testing.assert_close((x @ first.unsqueeze(2)).squeeze(2),
                               most * first, rtol=0, atol=1e-8)


def test_arguments_and_storage():
    pos = torch.randn(60, 3)
    tree = BallTree.build(pos, ball_size=16, axes='principal')
    data = AddBallTree(16, axes='principal')(Data(pos=pos))
    read = BallTree.from_data(data)
    assert read.axes == tree.axes == 'principal'
    assert torch.equal(read.partition(1).index, tree.partition(1).index)
    with pytest.raises(ValueError, match="Expected 'axes' to be 'coordinate'"):
        BallTree.build(pos, axes='widest')
    with pytest.raises(ValueError, match="Expected 'rotations' to be angles"):
        BallTree.build(pos, rotations=[torch.eye(3).tolist()],
                       axes='principal')
