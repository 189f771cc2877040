import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clouds import Clouds, clouds, level_sizes
from tests.nn.hard import hard_batch, with_virtual
from torch_geometric_erwin import BallTree, knn_graph


@settings(max_examples=40, deadline=None)
@given(clouds(), level_sizes(), st.booleans())
def test_there_and_back(cloud: Clouds, levels, perfect):
    sizes, strides = levels
    tree = BallTree.build(cloud.pos, cloud.batch, ball_size=sizes,
                          strides=strides,
                          completion='perfect' if perfect else 'balanced')
    other, index, inverse = tree.in_slot_order()
    assert torch.equal(index[inverse], torch.arange(tree.num_points))
    assert torch.equal(other.pos, tree.pos[index])
    assert torch.equal(other.batch, tree.batch[index])
    for i in range(tree.num_orientations):
        a, b = tree.partition(i), other.partition(i)
        assert torch.equal(index[b.index], a.index)
        assert torch.equal(b.inverse[inverse], a.inverse)
        assert torch.equal(other.offsets(i)[inverse], tree.offsets(i))
    assert (other.partition(0).inverse.diff() > 0).all()
    if tree.num_levels > 1:
        a, b = tree.coarsen(), other.coarsen()
        assert torch.equal(a.pos, b.pos) and torch.equal(a.batch, b.batch)
        assert torch.equal(other.cluster()[inverse], tree.cluster())


@settings(max_examples=40, deadline=None)
@given(clouds(), level_sizes())
def test_children_invert_cluster(cloud: Clouds, levels):
    sizes, strides = levels
    tree = BallTree.build(cloud.pos, cloud.batch, ball_size=sizes,
                          strides=strides)
    if tree.num_levels == 1:
        return
    coarse = tree.coarsen()
    index, mask = tree.children()
    assert index.shape == (coarse.num_points, tree.strides[0])
    mask = torch.ones_like(index, dtype=torch.bool) if mask is None else mask
    parent = torch.arange(coarse.num_points).unsqueeze(1).expand_as(index)
    assert torch.equal(tree.cluster()[index[mask]], parent[mask])
    assert torch.equal(index[mask].sort().values,
                       torch.arange(tree.num_points))
    assert torch.equal(coarse.batch[parent[mask]], tree.batch[index[mask]])


def test_foreign_trees():
    torch.manual_seed(0)
    pos, batch = hard_batch(2)
    tree = with_virtual(pos, batch, 8)
    other, _, _ = tree.in_slot_order()
    assert torch.equal(tree.coarsen().batch, other.coarsen().batch)
    index, mask = tree.children()
    assert not mask[:, 0].all() and mask.any(1).all()
    assert torch.equal(index[mask].sort().values, torch.arange(len(pos)))
    edges = tree.edge_index(1)
    assert torch.equal(tree.batch[edges[0]], tree.batch[edges[1]])


def test_copies_become_points():
    pos = torch.tensor([[0.], [4.], [9.]])
    index = torch.tensor([2, 2, 0, 1])
    mask = torch.tensor([True, False, True, True])
    turned = [torch.tensor([1, 2, 0, 3]), torch.tensor([1, 0])]
    tree = BallTree.from_permutation(
        pos, None, index, mask, ball_size=[2, 2], strides=(2, ),
        rotated=turned, virtual='copy')
    slots, way, back = tree.in_slot_order()
    assert slots.num_points == 4 and slots.ptr.tolist() == [0, 4]
    assert slots.pos.view(-1).tolist() == [9., 9., 0., 4.]
    assert way.tolist() == [2, 2, 0, 1] and back.tolist() == [2, 3, 0]
    assert slots.partition(1).index.tolist() == [1, 2, 0, 3]
    assert slots.partition(1).inverse.tolist() == [2, 0, 1, 3]
    assert torch.equal(slots.coarsen().pos, tree.coarsen().pos)
    assert slots.edge_index().size(1) == 8


def test_offsets_are_relative_to_the_center_of_mass():
    pos = torch.tensor([[0.], [1.], [5.], [7.]])
    tree = BallTree.build(pos, ball_size=2)
    assert tree.offsets().view(-1).tolist() == [-.5, .5, -1., 1.]
    tree = BallTree.build(torch.cat([pos, pos[:1] - 1]), ball_size=4,
                          strides=(2, ))
    coarse = tree.coarsen()
    offset = (coarse.offsets() * coarse.mass.unsqueeze(1)).sum()
    assert coarse.mass.tolist() != [1.] * coarse.num_points
    assert abs(offset) < 1e-6


def test_offsets_across_the_border_of_a_cell():
    r"""Balls of a shifted orientation cross it; offsets do not."""
    torch.manual_seed(0)
    pos = torch.rand(4096, 2, dtype=torch.float64)
    tree = BallTree.build(pos, ball_size=16, box=1.)
    spread = [tree.offsets(i).abs().max() for i in range(2)]
    assert max(spread) < 0.2
    moved = BallTree.build((pos + 0.3) % 1, ball_size=16, box=1.)
    assert torch.allclose(tree.offsets(0).norm(dim=1).mean(),
                          moved.offsets(1).norm(dim=1).mean(), rtol=0.2)


def test_with_masks():
    tree = BallTree.build(torch.rand(64, 3), ball_size=16, strides=(2, 2))
    assert tree.partition(0).mask is None
    masked = tree.with_masks()
    assert all(level.mask.all() for level in masked.levels)
    assert torch.equal(masked.coarsen().pos, tree.coarsen().pos)
    assert torch.equal(masked.coarsen().children()[0],
                       tree.coarsen().children()[0])


def test_edges_of_all_orientations():
    tree = BallTree.build(torch.rand(50, 2), ball_size=16)
    both = torch.cat([tree.edge_index(0), tree.edge_index(1)], dim=1)
    assert torch.equal(tree.edge_index(None), both)


def test_neighbors_of_a_tree():
    pos = torch.rand(50, 2)
    batch = torch.arange(2).repeat_interleave(25)
    tree = BallTree.build(pos, batch, ball_size=16, box=1.)
    assert torch.equal(tree.knn_graph(4), knn_graph(pos, 4, batch, box=1.))
    assert tree.knn_graph(4, loop=True)[0, 0] == 0
    empty = BallTree.build(pos[:0], ball_size=16)
    assert empty.knn_graph(4).shape == (2, 0)
    torch.library.opcheck(
        torch.ops.torch_geometric_erwin.knn_graph.default,
        (pos, batch, 4, False, 2, tree.box),
        test_utils=('test_schema', 'test_autograd_registration',
                    'test_faketensor'))
