import pickle

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.utils import erdos_renyi_graph

from tests.transforms import graphs
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.transforms import AddRandomWalkPos
from torch_geometric_erwin.transforms.anchors import farthest_nodes
from torch_geometric_erwin.transforms.graph import read_graph
from torch_geometric_erwin.transforms.random_walk import log_landing


def positions(data, dim=8, **kwargs):
    return AddRandomWalkPos(dim, dtype=torch.float64, **kwargs)(data).pos


@pytest.mark.parametrize('dim', [1, 2, 7, 32])
def test_returns_are_those_of_pyg(dim):
    torch.manual_seed(0)
    data = Data(edge_index=erdos_renyi_graph(40, 0.2), num_nodes=40)
    want = T.AddRandomWalkPE(dim)(data).random_walk_pe
    pos = AddRandomWalkPos(dim, landing='self')(data).pos
    torch.testing.assert_close(pos, want)


def test_returns_of_small_components():
    alone = Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=2)
    assert bool((positions(alone, 3, landing='self') == 1).all())
    data = graphs.union(graphs.ring(4), graphs.complete(3), graphs.path(2))
    pos = positions(data, 4, landing='self')
    want = [[0., 1 / 2, 0., 1 / 2]] * 4 + [[0., 1 / 2, 1 / 4, 3 / 8]] * 3 + [
        [0., 1., 0., 1.]] * 2
    torch.testing.assert_close(pos, torch.tensor(want, dtype=torch.float64))


def test_landing_probabilities():
    data = graphs.random_graph(15)
    graph = read_graph(data)
    dense = torch.zeros(15, 15, dtype=torch.float64)
    dense[graph.row, graph.col] = graph.weight
    step = dense / dense.sum(dim=1, keepdim=True)
    nodes, slots, _ = farthest_nodes(graph, 3)
    mean = sum(torch.linalg.matrix_power(step, k) for k in range(41)) / 41
    want = mean[:, nodes[slots.argsort()]].log()
    torch.testing.assert_close(log_landing(graph, 3, 40), want)


def test_walks_take_twice_the_hops():
    r"""In each component, but no more than 512 steps."""
    graph = read_graph(graphs.union(graphs.ring(12), graphs.ring(7)))
    found = log_landing(graph, 3, None)
    torch.testing.assert_close(found[:12], log_landing(graph, 3, 12)[:12])
    torch.testing.assert_close(found[12:], log_landing(graph, 3, 6)[12:])
    graph = read_graph(graphs.path(700))
    torch.testing.assert_close(log_landing(graph, 2, None),
                               log_landing(graph, 2, 512))


def test_anchors_are_far_apart():
    nodes, slots, reach = farthest_nodes(read_graph(graphs.path(9)), 4)
    # Of nodes of one degree those amid others come first.
    assert nodes.tolist()[1:3] in ([0, 8], [8, 0])
    assert slots.tolist() == [0, 1, 2, 3]
    assert reach.item() == max(int(nodes[0]), 8 - int(nodes[0]))
    data = graphs.union(graphs.star(6), graphs.path(1), graphs.ring(4))
    nodes, slots, _ = farthest_nodes(read_graph(data), 5)
    assert nodes[slots == 0].tolist() == [0, 6, 7]
    assert len(nodes) == 5 + 1 + 4 and nodes.unique().numel() == 10


@pytest.mark.parametrize('landing', ['anchors', 'self'])
@pytest.mark.parametrize('dim', [1, 2, 32])
def test_permutation(landing, dim):
    data = graphs.random_graph(60)
    perm = torch.randperm(60)
    pos = positions(data, dim, landing=landing)
    assert pos.shape == (60, dim)
    other = positions(graphs.permuted(data, perm), dim, landing=landing)
    torch.testing.assert_close(other, pos[perm])


@pytest.mark.parametrize('landing', ['anchors', 'self'])
def test_batch_equals_single_graphs(landing):
    items = [graphs.union(graphs.grid(4, 5), graphs.ring(7)), graphs.path(1),
             Data(edge_index=torch.empty(2, 0, dtype=torch.long),
                  num_nodes=0), graphs.ring(9), graphs.star(5)]
    args = {'dim': 4, 'landing': landing}
    pos = positions(Batch.from_data_list(items), **args)
    want = torch.cat([positions(item, **args) for item in items])
    torch.testing.assert_close(pos, want)
    items = [graphs.random_graph(30 + i, i) for i in range(20)]
    pos = positions(Batch.from_data_list(items), **args)
    want = torch.cat([positions(item, **args) for item in items])
    torch.testing.assert_close(pos, want)


def test_components_do_not_overlap():
    data = graphs.union(graphs.path(1), graphs.grid(5, 6), graphs.path(1),
                        graphs.ring(5))
    pos = positions(data, 3)
    grid, ring = pos[1:31], pos[32:]
    assert grid.square().sum(dim=1).mean() == pytest.approx(1.)
    assert grid[:, 0].max() < ring[:, 0].min()
    assert ring[:, 0].max() < min(pos[0, 0], pos[31, 0])
    assert pos[0, 0] != pos[31, 0] and bool((pos[0, 1:] == 0).all())


def test_balls_are_compact_on_the_graph():
    dijkstra = pytest.importorskip('scipy.sparse.csgraph').dijkstra
    from torch_geometric.utils import to_scipy_sparse_matrix
    data = graphs.grid(32, 32)
    hops = torch.from_numpy(dijkstra(to_scipy_sparse_matrix(
        data.edge_index, num_nodes=1024), unweighted=True))
    tree = BallTree.build(AddRandomWalkPos(8)(data).pos, ball_size=16)
    balls = tree.partition(0).index.view(-1, 16)
    within = hops[balls[:, :, None], balls[:, None]].mean()
    assert within < 0.2 * hops.mean()


def test_short_walks_leave_no_infinite_positions():
    pos = positions(graphs.path(200), 3, walk_length=2)
    assert bool(pos.isfinite().all())


def test_empty_graph_and_workers():
    none = Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=0)
    assert positions(none, 3).shape == (0, 3)
    assert positions(none, 3, landing='self').shape == (0, 3)
    transform = AddRandomWalkPos(2)
    items = [transform(graphs.ring(n)) for n in (3, 4, 5, 6)]
    batch = next(iter(DataLoader(items, 4, num_workers=1)))
    assert torch.equal(batch.pos, torch.cat([item.pos for item in items]))


def test_repr_and_pickling():
    transform = AddRandomWalkPos(3, attr='p', landing='self', walk_length=4)
    assert str(transform) == (
        "AddRandomWalkPos(dim=3, attr='p', landing='self', walk_length=4)")
    assert str(AddRandomWalkPos()) == 'AddRandomWalkPos(dim=8)'
    assert str(pickle.loads(pickle.dumps(transform))) == str(transform)


def test_errors():
    with pytest.raises(ValueError, match=r"'dim' to be positive \(got 0"):
        AddRandomWalkPos(0)
    with pytest.raises(ValueError, match="'anchors' or 'self' \\(got 'all'"):
        AddRandomWalkPos(landing='all')
    with pytest.raises(ValueError, match="'walk_length' to be positive"):
        AddRandomWalkPos(walk_length=0)
    with pytest.raises(ValueError, match="'edge_index' \\(got none"):
        positions(Data(x=torch.rand(3, 1)))
    with pytest.raises(ValueError, match='homogeneous graph'):
        positions(HeteroData())
    with pytest.raises(ValueError, match='at most 4000 nodes'):
        positions(graphs.path(4001), landing='self')
