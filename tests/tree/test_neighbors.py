r"""Neighbour search as users call it, against brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.clouds import SHAPES, clouds
from torch_geometric_erwin import (
    BallTree,
    knn,
    knn_graph,
    radius,
    radius_graph,
)
from torch_geometric_erwin.tree.checks import check_finite

EXACT = tuple(set(SHAPES) - {'huge', 'tiny'})


def distances(x: Tensor, y: Tensor, batch_x: Tensor,
              batch_y: Tensor) -> Tensor:
    r"""Squared distances, infinite between clouds, shape [y, x]."""
    total = x.new_zeros(len(y), len(x))
    for a in range(x.size(1)):
        d = (y[:, None, a] - x[None, :, a]).abs()
        total = total + d * d
    return total.masked_fill(batch_y[:, None] != batch_x[None, :],
                             float('inf'))


def nearest(square: Tensor, k: int | None, r: float | None) -> list:
    r"""Pairs of (center, neighbor), by center, distance and neighbor."""
    out = []
    limit = float('inf') if r is None else square.new_tensor(r)**2
    for i, row in enumerate(square):
        order = torch.sort(row, stable=True).indices
        keep = [
            j for j in order.tolist()
            if row[j] <= limit and row[j] < float('inf')
        ]
        out += [(i, j) for j in keep[:k]]
    return out


@settings(max_examples=80, deadline=None)
@given(clouds(most=150, shapes=EXACT), st.integers(1, 40), st.booleans(),
       st.sampled_from(['source_to_target', 'target_to_source']))
def test_knn_graph(cloud, k, loop, flow):
    edges = knn_graph(cloud.pos, k, cloud.batch, loop=loop, flow=flow)
    square = distances(cloud.pos, cloud.pos, cloud.batch, cloud.batch)
    if not loop:
        square.fill_diagonal_(float('inf'))
    if flow == 'source_to_target':
        edges = edges.flip(0)
    assert list(map(tuple, edges.t().tolist())) == nearest(square, k, None)


@settings(max_examples=80, deadline=None)
@given(clouds(most=300, shapes=EXACT), st.sampled_from([4, 16, 64, 256]),
       st.sampled_from(['balanced', 'perfect']), st.randoms())
def test_knn_graph_of_a_tree(cloud, ball_size, completion, random):
    r"""Whatever the balls are like: sparse, in any order, or not compact any
    more.
    """
    order = random.sample(range(len(cloud.pos)), len(cloud.pos))
    pos, batch = cloud.pos[order], cloud.batch[order]
    tree = BallTree.build(pos, batch, ball_size=ball_size,
                          completion=completion)
    clouds = tree.num_clouds
    assert torch.equal(tree.knn_graph(5),
                       knn_graph(pos, 5, batch, batch_size=clouds))
    moved = tree.with_pos(pos.flip(0))
    assert torch.equal(moved.knn_graph(5),
                       knn_graph(pos.flip(0), 5, batch, batch_size=clouds))


@settings(max_examples=80, deadline=None)
@given(clouds(most=150, shapes=EXACT), st.floats(0, 3), st.booleans(),
       st.one_of(st.none(), st.integers(1, 9)))
def test_radius_graph(cloud, r, loop, most):
    edges = radius_graph(cloud.pos, r, cloud.batch, loop=loop,
                         max_num_neighbors=most).flip(0)
    square = distances(cloud.pos, cloud.pos, cloud.batch, cloud.batch)
    if not loop:
        square.fill_diagonal_(float('inf'))
    assert list(map(tuple, edges.t().tolist())) == nearest(square, most, r)


@settings(max_examples=80, deadline=None)
@given(clouds(most=150, shapes=EXACT), st.integers(0, 2**31),
       st.integers(1, 20), st.floats(0, 3))
def test_two_clouds(cloud, seed, k, r):
    generator = torch.Generator().manual_seed(seed)
    count = len(cloud.sizes) + 1
    batch = torch.randint(0, count, (50, ), generator=generator)  # unsorted
    y = torch.randn(50, cloud.pos.size(1), generator=generator)
    y = y.to(cloud.pos.dtype)
    square = distances(cloud.pos, y, cloud.batch, batch)
    pairs = knn(cloud.pos, y, k, cloud.batch, batch)
    assert list(map(tuple, pairs.t().tolist())) == nearest(square, k, None)
    pairs = radius(cloud.pos, y, r, cloud.batch, batch)
    assert list(map(tuple, pairs.t().tolist())) == nearest(square, None, r)


def test_positions_outside_the_cell():
    pos = torch.tensor([[0.1], [9.8], [5.]])
    want = knn_graph(pos, 1, box=10.)
    assert torch.equal(knn_graph(pos + 30, 1, box=10.), want)
    assert want.tolist() == [[1, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    pos = torch.randn(200, 3).to(dtype)
    assert torch.equal(knn_graph(pos, 5), knn_graph(pos.float(), 5))


@pytest.mark.parametrize('scale', [1e16, 1e-42])
def test_huge_and_tiny_coordinates(scale):
    r"""Squares overflow or vanish, and still everyone has k neighbors."""
    pos = torch.randn(100, 3) * scale
    edges = knn_graph(pos, 7)
    assert torch.bincount(edges[1]).tolist() == [7] * 100
    assert (edges[0] != edges[1]).all()


def test_cosine():
    pos = torch.randn(60, 4)
    scaled = pos * torch.rand(60, 1).add(0.1)
    unit = torch.nn.functional.normalize(pos)
    want = (unit @ unit.t()).fill_diagonal_(-2).topk(3).indices
    edges = knn_graph(scaled, 3, cosine=True)
    assert edges[0].view(60, 3).tolist() == want.tolist()


def test_unsorted_batch():
    batch = torch.tensor([1, 0, 1, 0, 1])
    pos = torch.tensor([[0.], [0.], [1.], [5.], [9.]])
    assert knn_graph(pos, 1, batch).tolist() == [[2, 3, 0, 1, 2],
                                                 [0, 1, 2, 3, 4]]


def test_nothing():
    assert knn_graph(torch.rand(0, 3), 4).shape == (2, 0)
    assert radius_graph(torch.rand(1, 3), 1.).shape == (2, 0)
    assert knn(torch.rand(0, 3), torch.rand(5, 3), 4).shape == (2, 0)
    assert radius(torch.rand(5, 3), torch.rand(0, 3), 4.).shape == (2, 0)


def test_agrees_with_torch_cluster():
    cluster = pytest.importorskip('torch_cluster')
    pos = torch.rand(2000, 3, dtype=torch.float64)
    batch = torch.arange(2000) // 700

    def canonical(edges):
        return sorted(map(tuple, edges.t().tolist()))

    assert canonical(knn_graph(pos, 9, batch)) == canonical(
        cluster.knn_graph(pos, 9, batch))
    assert canonical(radius_graph(pos, 0.1, batch)) == canonical(
        cluster.radius_graph(pos, 0.1, batch, max_num_neighbors=2000))


def test_sums_of_large_coordinates_may_overflow():
    x = torch.full((3, 2), 3e38)
    check_finite(x, 'x')
    for bad in (float('inf'), float('nan')):
        x[1, 0], x[2, 1] = bad, -bad
        with pytest.raises(ValueError, match="'x' to have finite"):
            check_finite(x, 'x')


@pytest.mark.parametrize('options', [
    {}, {'cosine': True}, {'box': 1.}, {'box': torch.eye(2) + 0.1},
    {'box': 1., 'pbc': (True, False)}])
def test_what_is_not_finite_is_named(options):
    for bad in (float('inf'), float('nan')):
        pos = torch.rand(9, 2)
        pos[4, 1] = bad
        with pytest.raises(ValueError, match="'pos' to have finite"):
            knn_graph(pos, 3, **options)
