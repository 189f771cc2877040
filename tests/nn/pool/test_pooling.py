import pytest
import torch
from torch_geometric.nn import GraphNorm, InstanceNorm
from torch_geometric.utils import is_undirected

from tests.nn.hard import hard_batch, with_virtual
from torch_geometric_erwin import (
    BallPooling,
    BallTree,
    BallUnpooling,
    knn_graph,
)


def build(kind: str) -> BallTree:
    torch.manual_seed(0)
    pos, batch = hard_batch()
    if kind == 'foreign':
        return with_virtual(pos, batch, 8)
    return BallTree.build(pos, batch, ball_size=[8, 4], strides=(2, ),
                          completion=kind)


@pytest.mark.parametrize('kind', ['balanced', 'perfect', 'foreign'])
def test_pooling_by_hand(kind):
    tree = build(kind)
    pool = BallPooling(5, 7, 2, norm=None)
    x = torch.randn(tree.num_points, 5)
    out, coarse = pool(x, tree)
    assert out.shape == (coarse.num_points, 7)
    cluster, slot = tree.cluster(), tree.partition(0).inverse % 2
    for i in range(0, coarse.num_points, 7):
        points = torch.nonzero(cluster == i).view(-1)
        center = tree.pos[points].mean(0)
        assert torch.allclose(center, coarse.pos[i], atol=1e-6)
        full, near = torch.zeros(2, 5), torch.zeros(2, 3)
        full[slot[points]] = x[points]
        near[slot[points]] = tree.pos[points] - center
        hand = pool.lin(full.view(1, -1)) + pool.lin_pos(near.view(1, -1))
        assert torch.allclose(out[i], hand[0], atol=1e-5)


@pytest.mark.parametrize('kind', ['balanced', 'perfect', 'foreign'])
def test_unpooling_by_hand(kind):
    tree = build(kind)
    unpool = BallUnpooling(5, 7, 2, norm=None)
    coarse = tree.coarsen()
    x, skip = torch.randn(coarse.num_points, 5), torch.randn(
        tree.num_points, 7)
    out = unpool(x, coarse, skip, tree)
    cluster, slot = tree.cluster(), tree.partition(0).inverse % 2
    for i in range(0, tree.num_points, 11):
        points = torch.nonzero(cluster == cluster[i]).view(-1)
        near = torch.zeros(2, 3)
        near[slot[points]] = tree.pos[points] - coarse.pos[cluster[i]]
        both = unpool.lin(x[cluster[i]]) + unpool.lin_pos(near.view(-1))
        hand = skip[i] + both.view(2, 7)[slot[i]]
        assert torch.allclose(out[i], hand, atol=1e-5)


def test_statistics_are_of_real_points():
    tree = build('perfect')
    assert tree.num_slots > tree.num_points
    pool, unpool = BallPooling(5, 7, 2), BallUnpooling(7, 5, 2)
    x = torch.randn(tree.num_points, 5)
    out, coarse = pool(x, tree)
    assert torch.allclose(out.mean(0), torch.zeros(7), atol=1e-5)
    assert torch.allclose(out.var(0, correction=0), torch.ones(7), atol=1e-2)
    out = unpool(out, coarse, x, tree)
    assert torch.allclose(out.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(out.var(0, correction=0), torch.ones(5), atol=1e-2)


@pytest.mark.parametrize('norm', ['graph_norm', 'InstanceNorm', 'layer_norm',
                                  'pair_norm', GraphNorm, InstanceNorm(7),
                                  torch.nn.LayerNorm, None])
def test_norms(norm):
    r"""Norms of graphs are told the clouds, so that these do not mix."""
    tree = build('balanced')
    pool = BallPooling(5, 7, 2, norm=norm)
    x = torch.randn(tree.num_points, 5)
    out, coarse = pool(x, tree)
    own = tree.batch == 4
    alone, _ = pool(x[own], BallTree.build(tree.pos[own], ball_size=[8, 4],
                                           strides=(2, )))
    assert torch.allclose(out[coarse.batch == 4], alone, atol=1e-5)


def test_norms_of_several_layers_are_not_shared():
    norm = torch.nn.LayerNorm(7)
    a, b = (BallPooling(5, 7, 2, norm=norm) for _ in range(2))
    assert a.norm.module.weight is not b.norm.module.weight


@pytest.mark.parametrize('norm', ['batch_norm', 'BatchNorm'])
@pytest.mark.parametrize('sizes', [[1], [2], [], [1, 0]])
def test_hardly_any_points(sizes, norm):
    pos, batch = hard_batch(sizes=sizes)
    tree = BallTree.build(pos, batch, ball_size=4, strides=(2, ))
    pool = BallPooling(5, 7, 2, norm=norm)
    unpool = BallUnpooling(7, 5, 2, norm=norm)
    x = torch.randn(len(pos), 5)
    for _ in range(2):
        out, coarse = pool(x, tree)
        assert out.shape == (coarse.num_points, 7)
        back = unpool(out, coarse, x, tree)
        assert back.shape == x.shape and back.isfinite().all()
        pool.eval()
        unpool.eval()


@pytest.mark.parametrize('kind', ['balanced', 'foreign'])
def test_edges_are_carried(kind):
    tree = build(kind)
    edge_index = knn_graph(tree.pos, 4, tree.batch)
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    pool = BallPooling(5, 7, 2)
    _, coarse, edges = pool(torch.randn(tree.num_points, 5), tree,
                            edge_index)
    cluster = tree.cluster()
    pairs = {(a, b) for a, b in cluster[edge_index].t().tolist() if a != b}
    assert set(map(tuple, edges.t().tolist())) == pairs
    assert len(pairs) == edges.size(1)
    assert is_undirected(edges, num_nodes=coarse.num_points)
    assert torch.equal(coarse.batch[edges[0]], coarse.batch[edges[1]])


def test_stride_one():
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=[16, 8], strides=(1, ))
    x = torch.randn(len(pos), 5)
    out, coarse = BallPooling(5, 5, 1)(x, tree)
    assert coarse.num_points == len(pos) and coarse.ball_size == 8
    assert torch.equal(out[tree.cluster()], x)
    assert torch.equal(coarse.pos[tree.cluster()], pos)
    wide, _ = BallPooling(5, 7, 1)(x, tree)
    assert wide.shape == (len(pos), 7)
    back = BallUnpooling(7, 5, 1)(wide, coarse, x, tree)
    assert back.shape == x.shape


def test_lazy_and_repr():
    tree = build('balanced')
    pool, unpool = BallPooling(-1, 7, 2), BallUnpooling(-1, 5, 2)
    x = torch.randn(tree.num_points, 5)
    out, coarse = pool(x, tree)
    assert unpool(out, coarse, x, tree).shape == x.shape
    assert str(pool) == 'BallPooling(-1, 7, stride=2)'
    assert str(unpool) == 'BallUnpooling(-1, 5, stride=2)'
    weight = pool.lin.weight.clone()
    pool.reset_parameters()
    unpool.reset_parameters()
    assert not torch.equal(pool.lin.weight, weight)


def test_bad_input():
    tree = build('balanced')
    coarse = tree.coarsen()
    x, y = torch.randn(tree.num_points, 5), torch.randn(coarse.num_points, 7)
    pool, unpool = BallPooling(5, 7, 2), BallUnpooling(7, 5, 2)

    def refused(name, function, *args):
        with pytest.raises(ValueError, match=f"Expected '{name}' to .*got"):
            function(*args)

    refused('x', pool, x[1:], tree)
    refused('tree', pool, y[:, :5], coarse)  # has no coarser level
    refused('tree', BallPooling(5, 7, 4), x, tree)
    refused('edge_index', pool, x, tree, torch.rand(2, 3))
    refused('x', unpool, x, coarse, x, tree)
    refused('x_skip', unpool, y, coarse, y, tree)
    refused('tree', BallUnpooling(7, 5, 4), y, coarse, x, tree)
    other = BallTree.build(coarse.pos[1:], ball_size=4)
    refused('coarse_tree', unpool, y[1:], other, x, tree)
    refused('stride', BallPooling, 5, 7, 3)
    refused('in_channels', BallPooling, 0, 7, 2)
    refused('out_channels', BallUnpooling, 5, 0, 2)
    with pytest.raises(ValueError, match='batch_nrm'):
        BallPooling(5, 7, 2, norm='batch_nrm')
