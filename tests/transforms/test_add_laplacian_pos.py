import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from tests.transforms import graphs
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.transforms import AddLaplacianPos, spectral
from torch_geometric_erwin.transforms.graph import read_graph
from torch_geometric_erwin.transforms.spectral import spectral_axes


def laplacian(data):
    r"""The random-walk Laplacian and the degrees."""
    graph = read_graph(data)
    dense = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.float64)
    dense[graph.row, graph.col] = graph.weight
    degree = dense.sum(dim=1)
    return torch.eye(len(dense)) - dense / degree[:, None], degree


def eigenvalues(data, dim):
    r"""Those of the axes, which are checked to be eigenvectors."""
    axes = spectral_axes(read_graph(data), dim, commute=True)
    operator, degree = laplacian(data)
    gram = axes.t() @ (degree[:, None] * axes)
    values = 1 / gram.diagonal()
    torch.testing.assert_close(gram, gram.diagonal().diag())
    torch.testing.assert_close(operator @ axes, axes * values)
    return values


def positions(data, dim=8, **kwargs):
    return AddLaplacianPos(dim, dtype=torch.float64, **kwargs)(data).pos


CASES = {
    'path': (graphs.path(20), [
        1 - math.cos(math.pi * k / 19) for k in range(1, 20)]),
    'ring': (graphs.ring(15), sorted(
        1 - math.cos(2 * math.pi * k / 15) for k in range(1, 15))),
    'star': (graphs.star(9), [1.] * 7 + [2.]),
    'complete': (graphs.complete(7), [7 / 6] * 6),
    'hypercube': (graphs.hypercube(4), sorted(
        2 * bin(k).count('1') / 4 for k in range(1, 16))),
}


@pytest.mark.parametrize('name', CASES)
def test_known_spectra(name):
    data, want = CASES[name]
    want = torch.tensor(want, dtype=torch.float64)
    torch.testing.assert_close(eigenvalues(data, len(want)), want)
    torch.testing.assert_close(eigenvalues(data, 3), want[:3])


def test_known_spectra_of_large_graphs(monkeypatch):
    pytest.importorskip('scipy')
    monkeypatch.setattr(spectral, 'DENSE_NODES', 100)
    want = [1 - math.cos(2 * math.pi * k / 300)
            for k in (1, 1, 2, 2, 3)]
    want = torch.tensor(want, dtype=torch.float64)
    torch.testing.assert_close(eigenvalues(graphs.ring(300), 5), want)
    # Single-vector Lanczos finds an eigenvalue, but not its nine copies.
    want = torch.full((9, ), 2 / 9, dtype=torch.float64)
    torch.testing.assert_close(eigenvalues(graphs.hypercube(9), 9), want)


def test_path_of_any_length():
    pytest.importorskip('scipy')
    pos = positions(graphs.path(20000), dim=2)
    want = torch.cos(torch.linspace(0, math.pi, 20000, dtype=torch.float64))
    pos = pos / pos[0]
    torch.testing.assert_close(pos[:, 0], want, rtol=0, atol=1e-4)


@pytest.mark.parametrize('dim', [1, 2, 8, 32])
def test_permutation(dim):
    data = graphs.random_graph(60)
    perm = torch.randperm(60)
    pos = positions(data, dim)
    assert pos.shape == (60, dim)
    torch.testing.assert_close(positions(graphs.permuted(data, perm), dim),
                               pos[perm])


def test_permutation_of_components():
    parts = [graphs.random_graph(n, n) for n in (20, 30, 25)]
    data = graphs.union(*parts)
    data.edge_weight = torch.cat([part.edge_weight for part in parts])
    perm = torch.randperm(75)
    torch.testing.assert_close(positions(graphs.permuted(data, perm), 4),
                               positions(data, 4)[perm])


def test_scale_and_centre():
    data = graphs.random_graph(50)
    for scaling in ('commute', None):
        pos = positions(data, scaling=scaling)
        assert pos.square().sum(dim=1).mean().sqrt() == pytest.approx(1.)
        assert pos.mean(dim=0).abs().max() < 1e-12


def test_distances_are_commute_times():
    data = graphs.random_graph(12)
    axes = spectral_axes(read_graph(data), 11, commute=True)
    operator, degree = laplacian(data)
    inverse = torch.linalg.pinv(degree[:, None] * operator)
    diagonal = inverse.diagonal()
    resistance = diagonal[:, None] + diagonal - 2 * inverse
    torch.testing.assert_close(torch.cdist(axes, axes).square(), resistance)


def test_signs_and_bases():
    pos = positions(graphs.random_graph(40), 5)
    axes = spectral_axes(read_graph(graphs.random_graph(40)), 5, True)
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    assert bool((largest > 0).all()) and pos.shape == (40, 5)
    # The first node decides on the first axis of a symmetric graph.
    for data in (graphs.ring(12), graphs.complete(6)):
        pos = positions(data, 2)
        assert pos[0, 0] == pos[:, 0].max() and pos[0, 1].abs() < 1e-10
    pos = positions(graphs.star(6), 2)
    assert pos[1, 0] == pos[:, 0].max() and pos[1, 1].abs() < 1e-10


def test_first_axes_do_not_depend_on_their_number():
    for data in (graphs.ring(16), graphs.complete(9), graphs.hypercube(4)):
        want = spectral_axes(read_graph(data), 7, True)
        torch.testing.assert_close(spectral_axes(read_graph(data), 2, True),
                                   want[:, :2])


def test_large_graphs_agree_with_small_ones(monkeypatch):
    pytest.importorskip('scipy')
    from torch_geometric_erwin.transforms import sparse_spectral
    cases = [graphs.random_graph(400), graphs.grid(12, 30), graphs.path(300),
             graphs.ring(250), graphs.hypercube(8)]
    want = [positions(data, 6) for data in cases]
    monkeypatch.setattr(spectral, 'DENSE_NODES', 50)
    methods = [sparse_spectral.by_factorization, sparse_spectral.by_adjacency,
               sparse_spectral.by_conjugate_gradients]
    for method in methods:
        monkeypatch.setattr(sparse_spectral, 'METHODS', (method, ))
        monkeypatch.setattr(sparse_spectral, 'is_cheap_to_factorize',
                            lambda _: False)
        for data, pos in zip(cases, want, strict=True):
            if method is methods[1] and data.num_edges < 2 * 350:
                continue  # the eigenvalues of paths and rings are too close
            torch.testing.assert_close(positions(data, 6), pos, rtol=1e-4,
                                       atol=1e-4)


def test_weights_of_many_magnitudes():
    pytest.importorskip('scipy')
    data = graphs.random_graph(700)
    data.edge_weight = 10**(-6 * (data.edge_weight - 0.1))
    assert bool((eigenvalues(data, 8).diff() > 0).all())


def test_unconverged_vectors_are_not_returned(monkeypatch):
    pytest.importorskip('scipy')
    from torch_geometric_erwin.transforms import sparse_spectral
    monkeypatch.setattr(sparse_spectral, 'METHODS', (
        sparse_spectral.by_adjacency, ))
    monkeypatch.setattr(sparse_spectral, 'is_cheap_to_factorize',
                        lambda _: False)
    with pytest.raises(RuntimeError, match='5000 nodes did not converge'):
        positions(graphs.path(5000), 6)


def test_components_lie_side_by_side():
    data = graphs.union(graphs.ring(5), graphs.grid(5, 6), graphs.path(1),
                        graphs.complete(5), graphs.path(1), graphs.path(2))
    pos = positions(data, 3)
    graph = read_graph(data)
    parts = [pos[graph.component == i] for i in range(6)]
    ranges = sorted((float(part[:, 0].min()), float(part[:, 0].max()), len(
        part)) for part in parts)
    assert [n for _, _, n in ranges] == [30, 5, 5, 2, 1, 1]
    for (_, end, _), (start, _, _) in pairwise(ranges):
        assert start > end
    assert parts[1].mean(dim=0).abs().max() < 1e-10
    spread = [(part - part.mean(dim=0)).square().sum(dim=1).mean().sqrt()
              for part in parts]
    assert spread[1] == pytest.approx(1.)
    assert spread[0] == pytest.approx((5 / 30)**0.5)


def test_gaps_between_components():
    r"""They are as wide as either neighbor is along any axis, and as its
    radius at least.
    """
    data = graphs.union(graphs.ring(5), graphs.grid(5, 6), graphs.path(1),
                        graphs.path(1))
    pos = positions(data, 3)
    component = read_graph(data).component
    parts = [pos[component == i] for i in (1, 0, 2, 3)]
    reach = [max(float((part.amax(0) - part.amin(0)).max()),
                 (len(part) / 30)**0.5) for part in parts]
    for i, (left, right) in enumerate(pairwise(parts)):
        gap = float(right[:, 0].min() - left[:, 0].max())
        assert gap == pytest.approx(max(reach[i:i + 2]))


def test_equal_sizes_and_weights_are_ordered_by_walks():
    parts = [graphs.ring(10), graphs.path(10)]
    for part, more in zip(parts, (
            [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]],
            [[0, 0, 0, 1, 1, 2], [2, 3, 4, 3, 4, 4]]), strict=True):
        more = torch.tensor(more)
        part.edge_index = torch.cat([part.edge_index, more, more.flip(0)], 1)
        assert part.num_edges == 30
    want, pos = (positions(graphs.union(*order), 3)
                 for order in (parts, parts[::-1]))
    torch.testing.assert_close(pos, want.roll(10, 0))


def test_balls_rarely_mix_components():
    data = graphs.union(*[graphs.random_graph(32, i) for i in range(8)])
    tree = BallTree.build(positions(data, 4), ball_size=32)
    component = tree.partition(0).index.view(-1, 32) // 32
    assert bool((component == component[:, :1]).all())


def test_fewer_nodes_than_axes():
    pos = positions(graphs.path(3), 8)
    assert bool((pos[:, 2:] == 0).all()) and bool(pos[:, :2].any(dim=0).all())
    assert positions(graphs.path(1), 2).tolist() == [[0., 0.]]
    none = Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=0)
    assert positions(none, 3).shape == (0, 3)
    alone = Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=4)
    assert positions(alone, 1).unique().numel() == 4


def test_many_components():
    pairs = torch.arange(40000).view(-1, 2).t()
    data = Data(edge_index=pairs, num_nodes=60000)
    pos = positions(data, 2)
    assert bool(pos.isfinite().all())
    assert pos[:, 0].unique().numel() == 60000


@pytest.mark.parametrize('dim', [1, 4])
def test_batch_equals_single_graphs(dim):
    items = [graphs.union(graphs.grid(4, 5), graphs.ring(7)), graphs.path(1),
             Data(edge_index=torch.empty(2, 0, dtype=torch.long),
                  num_nodes=0), graphs.ring(9), graphs.star(5)]
    pos = positions(Batch.from_data_list(items), dim)
    want = torch.cat([positions(item, dim) for item in items])
    torch.testing.assert_close(pos, want)


def test_data_loader_workers():
    transform = AddLaplacianPos(3)
    items = [graphs.ring(n) for n in range(3, 11)]
    loader = DataLoader(list(map(transform, items)), 4, num_workers=1)
    pos = torch.cat([batch.pos for batch in loader])
    assert torch.equal(pos, torch.cat([transform(i).pos for i in items]))


def test_what_edges_mean():
    data = graphs.random_graph(30)
    pos = positions(data, 4)
    # Weights count up to a factor, loops not at all.
    more = data.clone()
    loops = torch.arange(30).repeat(2, 1)
    more.edge_index = torch.cat([data.edge_index, loops], dim=1)
    more.edge_weight = torch.cat([1e9 * data.edge_weight, torch.ones(30)])
    torch.testing.assert_close(positions(more, 4), pos)
    # Parallel edges add up, and directions do not matter.
    other = data.clone()
    half = data.edge_index[:, data.edge_weight > 0.5]
    other.edge_index = torch.cat([data.edge_index, half.flip(0)], dim=1)
    other.edge_weight = torch.cat([
        data.edge_weight - 0.25 * (data.edge_weight > 0.5),
        torch.full((half.size(1), ), 0.25, dtype=torch.float64)])
    torch.testing.assert_close(positions(other, 4), pos)
    assert not torch.allclose(positions(data.clone().update(
        {'edge_weight': None}), 4), pos)
    # Weights so large or so small that products of them are no numbers.
    for factor in (1e308, 1e-300):
        other = data.clone()
        other.edge_weight = data.edge_weight.double() * factor
        torch.testing.assert_close(positions(other, 4), pos)
    other = data.clone()
    other.edge_index = data.edge_index.int()
    assert torch.equal(positions(other, 4), pos)
    # An edge of no weight is none.
    cut = graphs.path(4)
    cut.edge_weight = torch.tensor([1., 1., 0., 0., 1., 1.])
    apart = graphs.union(graphs.path(2), graphs.path(2))
    torch.testing.assert_close(positions(cut, 2), positions(apart, 2))


def test_balls_are_compact_on_the_graph():
    from scipy.sparse.csgraph import dijkstra
    from torch_geometric.utils import to_scipy_sparse_matrix
    data = graphs.grid(32, 32)
    hops = torch.from_numpy(dijkstra(to_scipy_sparse_matrix(
        data.edge_index, num_nodes=1024), unweighted=True))
    tree = BallTree.build(AddLaplacianPos(8)(data).pos, ball_size=16)
    balls = tree.partition(0).index.view(-1, 16)
    within = hops[balls[:, :, None], balls[:, None]].mean()
    assert within < 0.2 * hops.mean()


def test_result_is_deterministic_and_input_kept():
    data = graphs.random_graph(1200)
    pytest.importorskip('scipy')
    transform = AddLaplacianPos(4, attr='where')
    first, second = transform(data), transform(copy.copy(data))
    assert torch.equal(first.where, second.where)
    assert 'where' not in data and first.where.dtype == torch.float32
    assert first.pos is None


def test_repr_and_pickling():
    transform = AddLaplacianPos(3, attr='p', scaling=None)
    assert str(transform) == (
        "AddLaplacianPos(dim=3, attr='p', scaling=None)")
    assert str(AddLaplacianPos()) == 'AddLaplacianPos(dim=8)'
    assert str(pickle.loads(pickle.dumps(transform))) == str(transform)


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match=r"'dim' to be positive \(got 0"):
        AddLaplacianPos(0)
    with pytest.raises(ValueError, match="'scaling' to be 'commute' or None"):
        AddLaplacianPos(scaling='heat')
    with pytest.raises(ValueError, match="'edge_index' \\(got none"):
        positions(Data(x=torch.rand(3, 1)))
    with pytest.raises(ValueError, match='homogeneous graph'):
        positions(HeteroData())
    bad = graphs.path(3)
    for value in (-1., math.inf, math.nan):
        bad.edge_weight = torch.tensor([1., 1., 1., value])
        with pytest.raises(ValueError, match='finite and not negative'):
            positions(bad)
    bad.edge_weight = torch.ones(3)
    with pytest.raises(ValueError, match='each of 4 edges'):
        positions(bad)
    with pytest.raises(ValueError, match=r'in \[0, 3\) \(got 0 to 5'):
        positions(Data(edge_index=torch.tensor([[0], [5]]), num_nodes=3))
    monkeypatch.setitem(__import__('sys').modules, 'scipy.sparse', None)
    with pytest.raises(ImportError, match=r'erwin\[graphs\]'):
        positions(graphs.path(2000))


def test_batches_are_checked():
    def place(edges, **kwargs):
        data = Data(edge_index=torch.tensor(edges).view(2, -1), num_nodes=3,
                    **kwargs)
        return AddLaplacianPos(2)(data).pos

    with pytest.raises(ValueError, match=r"'batch'.*3 nodes.*\[2\]"):
        place([[0], [1]], batch=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"'batch'.*got -1"):
        place([[0], [1]], batch=torch.tensor([-1, -1, 0]))
    with pytest.raises(ValueError, match='edges between graphs'):
        place([[0], [2]], batch=torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="'edge_index' to hold integers"):
        place([[0.], [1.]])
    with pytest.raises(ValueError, match=r"'dtype'.*int64"):
        AddLaplacianPos(2, dtype=torch.long)
    # Either tells which node belongs to which graph.
    by_ptr = place([[0], [1]], ptr=torch.tensor([0, 2, 3]))
    by_batch = place([[0], [1]], batch=torch.tensor([0, 0, 1]))
    assert torch.equal(by_ptr, by_batch)
    assert by_ptr[2].tolist() == [0, 0]
