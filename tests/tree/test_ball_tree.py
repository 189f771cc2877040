import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clouds import SHAPES, clouds, level_sizes, make_pos
from tests.tree import recursive
from torch_geometric_erwin import BallTree

ALL_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@settings(max_examples=300, deadline=None)
@given(clouds(most=400, max_clouds=1, dims=(1, 5)), st.integers(1, 8),
       st.booleans())
def test_is_algorithm_1(cloud, log_size, perfect):
    r"""Guarantee 3: each split is at the median of the widest axis."""
    tree = BallTree.build(cloud.pos, ball_size=2**log_size, rotations=[0.],
                          completion='perfect' if perfect else 'balanced')
    part = tree.partition(0)
    index, mask = recursive.build(cloud.pos.numpy(), 2**log_size, perfect)
    assert part.index.tolist() == index
    real = part.mask if part.mask is not None else torch.ones(len(index)) > 0
    assert real.tolist() == mask


@settings(max_examples=150, deadline=None)
@given(clouds(most=3000, dtypes=ALL_DTYPES), level_sizes(),
       st.sampled_from(['balanced', 'perfect']))
def test_any_input(cloud, sizes, completion):
    ball_size, strides = sizes
    tree = BallTree.build(cloud.pos, cloud.batch, ball_size=ball_size,
                          strides=strides, completion=completion)
    assert tree.pos.dtype == cloud.pos.dtype
    assert tree.num_levels == len(ball_size)
    for _ in range(tree.num_levels - 1):
        tree = tree.coarsen()
        assert tree.pos.size(0) == tree.num_points == tree.batch.numel()
        assert torch.isfinite(tree.pos).all()


@settings(max_examples=80, deadline=None)
@given(clouds(), level_sizes())
def test_clouds_never_mix(cloud, sizes):
    r"""Guarantee 1: a cloud's tree is the same alone and in a batch."""
    ball_size, strides = sizes
    args = {'ball_size': ball_size, 'strides': strides}
    whole = BallTree.build(cloud.pos, ptr=cloud.ptr, **args)
    for i, pos in enumerate(cloud.split()):
        alone, tree = BallTree.build(pos, **args), whole
        while True:
            rows = tree.batch == i
            assert torch.equal(tree.pos[rows], alone.pos)
            for j in range(2):
                part, own = tree.partition(j), alone.partition(j)
                mine = tree.batch[part.index] == i
                start = tree.ptr[i]
                assert torch.equal(part.index[mine] - start, own.index)
                if part.mask is not None and own.mask is not None:
                    assert torch.equal(part.mask[mine], own.mask)
            if tree.num_levels == 1:
                break
            tree, alone = tree.coarsen(), alone.coarsen()


@settings(max_examples=80, deadline=None)
@given(clouds(shapes=tuple(set(SHAPES) - {'duplicates'})), level_sizes(),
       st.randoms(use_true_random=False))
def test_order_does_not_matter(cloud, sizes, random):
    r"""Guarantee 5: permuting the points permutes the tree."""
    ball_size, strides = sizes
    shuffle = list(range(len(cloud.pos)))
    random.shuffle(shuffle)
    shuffle = torch.tensor(shuffle, dtype=torch.long)
    trees = [
        BallTree.build(pos, batch, ball_size=ball_size, strides=strides)
        for pos, batch in ((cloud.pos, cloud.batch),
                           (cloud.pos[shuffle], cloud.batch[shuffle]))
    ]
    for j in range(2):
        a, b = (tree.partition(j) for tree in trees)
        # The same positions lie in the same slots; equal ones are alike.
        assert torch.equal(trees[0].pos[a.index], trees[1].pos[b.index])
    while trees[0].num_levels > 1:
        trees = [tree.coarsen() for tree in trees]
        assert torch.equal(trees[0].pos, trees[1].pos)
        for j in range(2):
            a, b = (tree.partition(j) for tree in trees)
            assert torch.equal(a.index, b.index)


@settings(max_examples=60, deadline=None)
@given(clouds(shapes=('normal', 'lattice')), level_sizes(smallest=1))
def test_nested(cloud, sizes):
    r"""Balls of a coarser level are unions of balls, where they can be."""
    ball_size, strides = sizes
    tree = BallTree.build(cloud.pos, cloud.batch, ball_size=ball_size,
                          strides=strides)
    for i, stride in enumerate(strides):
        if ball_size[i + 1] * stride < ball_size[i]:
            break
        fine, coarse = tree.ball_of_point(i), tree.ball_of_point(i + 1)
        pairs = torch.stack([fine, coarse]).unique(dim=1)
        assert pairs.size(1) == fine.unique().numel()


@settings(max_examples=60, deadline=None)
@given(clouds(shapes=('normal', 'duplicates', 'lattice'),
              dtypes=(torch.float64, )), level_sizes())
def test_centers_and_radii(cloud, sizes):
    r"""Definition 3.2, ball by ball."""
    tree = BallTree.build(cloud.pos, cloud.batch, ball_size=sizes[0],
                          strides=sizes[1])
    for level in range(tree.num_levels):
        ball = tree.ball_of_point(level)
        centers, radii = tree.centers(level), tree.radii(level)
        for b in range(len(centers)):
            points = cloud.pos[ball == b]
            assert len(points) > 0
            assert torch.allclose(centers[b], points.mean(0), atol=1e-10)
            far = (points - points.mean(0)).norm(dim=1).max()
            assert torch.allclose(radii[b], far, atol=1e-7)


def test_coarse_points_are_centers_of_mass():
    pos = torch.rand(100, 3, dtype=torch.float64)
    tree = BallTree.build(pos, ball_size=32, strides=(4, 8))
    coarse = tree.coarsen().coarsen()
    assert coarse.mass.sum() == 100
    mean = (coarse.pos * coarse.mass[:, None]).sum(0) / 100
    assert torch.allclose(mean, pos.mean(0))


def test_positions_carry_gradients():
    def fn(pos):
        tree = BallTree.build(pos, ball_size=4, strides=(2, 2))
        top = tree.coarsen().coarsen()
        return top.pos.square(), tree.centers(1), tree.radii(0)

    pos = torch.rand(13, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fn, pos)
    assert torch.autograd.gradgradcheck(fn, pos)


def test_coincident_points_have_finite_gradients():
    pos = torch.ones(5, 3, requires_grad=True)
    tree = BallTree.build(pos, ball_size=4)
    (tree.radii(0).sum() + tree.centers(0).sum()).backward()
    assert torch.isfinite(pos.grad).all()


@pytest.mark.parametrize('dim', [1, 2, 3, 5])
def test_rotated_partitions_differ(dim):
    pos = make_pos('normal', 500, dim, 0, torch.float32)
    tree = BallTree.build(pos, ball_size=32, strides=(2, ))
    for level in (tree, tree.coarsen()):
        a, b = level.partition(0), level.partition(1)
        balls = [p.inverse // 32 for p in (a, b)]
        together = [ball[:, None] == ball[None, :] for ball in balls]
        assert (together[0] & ~together[1]).any()


def test_line_slides_by_half_a_ball():
    pos = torch.arange(64.).view(-1, 1)
    tree = BallTree.build(pos, ball_size=16)
    ball = tree.partition(1).inverse // 16
    assert ball.tolist() == [3] * 8 + [0] * 16 + [1] * 16 + [2] * 16 + [3] * 8


def test_periodic():
    pos = torch.tensor([[-0.1, 0.5], [9.9, 10.5], [4., 10.]],
                       requires_grad=True)
    tree = BallTree.build(pos, ball_size=2, box=[10., 10.])
    want = torch.tensor([[9.9, 0.5], [9.9, 0.5], [4., 0.]])
    assert torch.allclose(tree.pos, want, atol=1e-6)
    assert (tree.pos >= 0).all() and (tree.pos < 10).all()
    tree.pos.sum().backward()
    assert torch.equal(pos.grad, torch.ones(3, 2))


@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:'box' is taken to be the edges")
@given(clouds(shapes=('normal', 'offset', 'tiny')), st.integers(0, 9))
def test_periodic_shift_by_cells(cloud, seed):
    r"""Whole cells make no difference, and cells may differ by cloud."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(cloud.sizes), cloud.pos.size(1))
    box = torch.randint(1, 4, shape, generator=generator) * 0.5
    box = box.to(cloud.pos.dtype)
    pos = torch.remainder((cloud.pos * 64).round() / 64, 1)
    moved = pos + box[cloud.batch] * 3
    trees = [BallTree.build(p, ptr=cloud.ptr, box=box, ball_size=16)
             for p in (pos, moved)]
    assert (trees[0].pos < box[cloud.batch]).all()
    for j in range(2):
        a, b = (tree.partition(j) for tree in trees)
        assert torch.equal(a.index, b.index)


def test_edge_index():
    tree = BallTree.build(torch.rand(37, 2), torch.arange(37) % 3,
                          ball_size=8)
    for i in range(2):
        edges = tree.edge_index(i)
        part = tree.partition(i)
        ball = part.inverse // 8
        want = (ball[:, None] == ball[None, :]).nonzero().t()
        assert {*map(tuple, edges.t().tolist())} == {
            *map(tuple, want.t().tolist())}
        assert (part.inverse[edges[1]].diff() >= 0).all()
        no_loops = tree.edge_index(i, loop=False)
        assert torch.equal(no_loops, edges[:, edges[0] != edges[1]])


def test_edge_index_serves_message_passing():
    from torch_geometric.nn import GCNConv
    tree = BallTree.build(torch.rand(40, 3), ball_size=16)
    assert GCNConv(4, 8)(torch.rand(40, 4), tree.edge_index()).shape == (40, 8)


@pytest.mark.parametrize('sizes', [[], [0], [1], [0, 1, 0], [0, 0]])
def test_next_to_nothing(sizes):
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    n = sum(sizes)
    tree = BallTree.build(torch.rand(n, 3), ptr=ptr, ball_size=4,
                          strides=(2, ))
    assert tree.num_points == n and tree.num_clouds == len(sizes)
    assert tree.num_balls == n
    assert tree.coarsen().num_points == n
    assert tree.centers(1).shape == (n, 3)
    assert tree.edge_index().shape == (2, n)
    assert 'BallTree' in repr(tree)


def test_unsorted_batch_with_missing_cloud():
    batch = torch.tensor([4, 0, 4, 2, 0, 4])
    pos = torch.rand(6, 3)
    tree = BallTree.build(pos, batch, ball_size=2)
    assert tree.num_clouds == 5
    assert tree.ptr.tolist() == [0, 2, 2, 3, 3, 6]
    for j in range(2):
        part = tree.partition(j)
        assert torch.equal(part.index[part.inverse], torch.arange(6))
        balls = batch[part.index].view(-1, 2)
        assert (balls[:, 0] == balls[:, 1]).all()


def test_repr_and_ints():
    tree = BallTree.build(torch.rand(1000, 3), ball_size=64, strides=(2, 4))
    assert (tree.num_points, tree.num_balls, tree.ball_size) == (1000, 16, 64)
    assert (tree.num_levels, tree.num_orientations) == (3, 2)
    assert tree.num_slots == 1024
    for word in ('num_points=1000', 'strides=[2, 4]', 'num_balls=[16, 8, 2]',
                 'virtual=24 (2.3%)'):
        assert word in repr(tree)


def test_to_device_and_apply():
    tree = BallTree.build(torch.rand(100, 3), ball_size=16, strides=(2, ),
                          box=1.)
    meta = tree.to('meta')
    assert meta.levels[1].index[1].device.type == 'meta'
    assert meta.box.device.type == 'meta'
    assert tree.cpu().levels[0].index[0].device.type == 'cpu'
    doubled = tree.apply(lambda x: x * 2)
    assert torch.equal(doubled.pos, 2 * tree.pos)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_gpu_equals_cpu():
    pos = torch.rand(5000, 3)
    batch = torch.arange(3).repeat_interleave(torch.tensor([1, 999, 4000]))
    kwargs = {'ball_size': 64, 'strides': (2, 4)}
    a = BallTree.build(pos, batch, **kwargs)
    b = BallTree.build(pos.cuda(), batch.cuda(), **kwargs).cpu()
    for x, y in zip(a.levels, b.levels, strict=True):
        assert all(map(torch.equal, x.index, y.index))
    a.pin_memory()


@pytest.mark.parametrize('angle', [0., 30., 45., 90., 400.])
def test_rotations(angle):
    r"""An orientation is the tree of the rotated cloud."""
    pos = torch.rand(300, 2, dtype=torch.float64)
    a = math.radians(angle)
    turned = pos @ torch.tensor([[math.cos(a), math.sin(a)],
                                 [-math.sin(a), math.cos(a)]]).double()
    tree = BallTree.build(pos, ball_size=32, rotations=(0., angle))
    want = BallTree.build(turned, ball_size=32, rotations=(0., ))
    balls = [set() for _ in range(2)]
    for i, part in enumerate((tree.partition(1), want.partition(0))):
        real = part.mask
        for row, keep in zip(part.index.view(-1, 32), real.view(-1, 32),
                             strict=True):
            balls[i].add(frozenset(row[keep].tolist()))
    assert balls[0] == balls[1]


def test_less_padding_than_the_paper():
    for n in (1025, 3000, 5000, 100_001):
        pos = torch.from_numpy(np.random.default_rng(0).random((n, 3)))
        ours = BallTree.build(pos, ball_size=256, rotations=[0.])
        paper = BallTree.build(pos, ball_size=256, rotations=[0.],
                               completion='perfect')
        assert ours.num_slots - n < 256
        assert paper.num_slots == 2**math.ceil(math.log2(n))
