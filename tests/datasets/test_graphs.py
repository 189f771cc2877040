r"""Rings, trees and block models."""

from collections import Counter

import pytest
import torch
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import AddRandomWalkPE
from torch_geometric.utils import (
    contains_self_loops,
    degree,
    is_undirected,
    to_dense_adj,
    to_undirected,
)

from torch_geometric_erwin.datasets import (
    RingTransfer,
    SBMClustering,
    TreeNeighborsMatch,
)
from torch_geometric_erwin.datasets.sbm_clustering import make_pattern

MAKE = {
    'ring': lambda root, **kwargs: RingTransfer(root, **kwargs),
    'tree': lambda root, **kwargs: TreeNeighborsMatch(root, **kwargs),
    'cluster': lambda root, **kwargs: SBMClustering(root, 'CLUSTER',
                                                    **kwargs),
    'pattern': lambda root, **kwargs: SBMClustering(root, 'PATTERN',
                                                    **kwargs),
}


def hops(data):
    r"""The number of edges between each two nodes, ignoring directions."""
    edges = to_undirected(data.edge_index, num_nodes=data.num_nodes)
    adj = to_dense_adj(edges, max_num_nodes=data.num_nodes)[0] > 0
    reached = torch.eye(data.num_nodes, dtype=torch.bool)
    count = torch.full(adj.shape, -1).masked_fill(reached, 0)
    for hop in range(1, data.num_nodes):
        reached = reached | (reached.float() @ adj.float() > 0)
        count[reached & (count < 0)] = hop
    return count


@pytest.mark.parametrize('num_nodes', [3, 10, 11, 60])
def test_ring_transfer(tmp_path, num_nodes):
    dataset = RingTransfer(str(tmp_path), num_graphs=40, num_nodes=num_nodes)
    sources = set()
    for data in dataset:
        assert is_undirected(data.edge_index)
        assert degree(data.edge_index[0]).tolist() == [2] * num_nodes
        target, = data.mask.nonzero().flatten().tolist()
        sums = data.x.sum(dim=1)
        source, = (sums == 1).nonzero().flatten().tolist()
        sources.add(source)
        assert hops(data)[source, target] == num_nodes // 2
        assert sums[target] == 0 and (sums == 5).sum() == num_nodes - 2
        assert data.y[target] == data.x[source].argmax()
    assert len(sources) > 1
    assert {int(data.y[0]) for data in dataset} == set(range(5))


@pytest.mark.parametrize('depth', [1, 3, 7])
def test_tree_neighbors_match(tmp_path, depth):
    leaves = 2**depth
    dataset = TreeNeighborsMatch(str(tmp_path), num_graphs=40, depth=depth)
    for data in dataset:
        assert data.num_nodes == 2 * leaves - 1
        distance = hops(data)[0]
        assert distance[-leaves:].unique().tolist() == [depth]
        assert (distance[data.edge_index[0]] ==
                distance[data.edge_index[1]] + 1).all()  # to the root
        inner = data.x[1:-leaves]
        assert (inner == 0).all() and data.x[0, 1] == 0
        for column in data.x[-leaves:].t():
            assert column.sort().values.tolist() == list(
                range(1, leaves + 1))
        assert data.mask.nonzero().tolist() == [[0]]
        match = data.x[-leaves:, 0] == data.x[0, 0]
        assert data.x[-leaves:][match][0, 1] == data.y[0] + 1


def block_degrees(data):
    r"""How many nodes there are, and edges, within and between blocks."""
    same = data.y[:, None] == data.y
    adj = to_dense_adj(data.edge_index, max_num_nodes=len(data.y))[0]
    off = ~torch.eye(len(data.y), dtype=torch.bool)
    return torch.stack([adj[same & off].mean(), adj[~same].mean()])


def test_cluster(tmp_path):
    dataset = SBMClustering(str(tmp_path), 'CLUSTER', num_graphs=60)
    rates = []
    for data in dataset:
        assert is_undirected(data.edge_index)
        assert not contains_self_loops(data.edge_index)
        sizes = torch.bincount(data.y)
        assert len(sizes) == 6 and (sizes >= 5).all() and (sizes <= 35).all()
        marked = data.x[:, 0] > 0
        assert (data.x[marked, 0] - 1 == data.y[marked]).all()
        assert data.x[marked, 0].sort().values.tolist() == [1, 2, 3, 4, 5, 6]
        rates.append(block_degrees(data))
    within, between = torch.stack(rates).mean(dim=0).tolist()
    assert within == pytest.approx(0.55, abs=0.01)
    assert between == pytest.approx(0.25, abs=0.01)


def test_pattern(tmp_path):
    r"""Patterns are the same in all splits, and hidden by their edges."""
    patterns = Counter()
    for split in ('train', 'test'):
        dataset = SBMClustering(str(tmp_path), 'PATTERN', split,
                                num_graphs=80)
        for data in dataset:
            assert is_undirected(data.edge_index)
            assert not contains_self_loops(data.edge_index)
            assert data.y.sum() == 20 and 25 <= len(data.y) - 20 <= 175
            adj = to_dense_adj(data.edge_index,
                               max_num_nodes=len(data.y))[0]
            inside = data.y == 1
            assert adj[inside][:, ~inside].mean() == pytest.approx(
                0.5, abs=0.1)
            edges = int(adj[inside][:, inside].sum())
            counts = torch.bincount(data.x[inside, 0], minlength=3)
            patterns[(split, edges, *counts.tolist())] += 1
    kinds = {key[1:] for key in patterns}
    assert len(kinds) <= 100  # and not one for each of 160 graphs
    shared = ({key[1:] for key in patterns if key[0] == 'train'} &
              {key[1:] for key in patterns if key[0] == 'test'})
    assert len(shared) > 20


def test_patterns_follow_the_seed():
    def pattern(seed):
        data = make_pattern(torch.Generator().manual_seed(3), seed)
        inside = data.y == 1
        return data.x[inside], data.edge_index[
            :, inside[data.edge_index].all(0)]

    for same, other, again in zip(pattern(0), pattern(1), pattern(0),
                                  strict=True):
        assert torch.equal(same, again) and not torch.equal(same, other)


def test_order_of_nodes_tells_nothing(tmp_path):
    for name in ('CLUSTER', 'PATTERN'):
        y = torch.cat([data.y[:10] for data in SBMClustering(
            str(tmp_path), name, num_graphs=40)]).float()
        assert y.unique().numel() == (6 if name == 'CLUSTER' else 2)


@pytest.mark.parametrize('name', MAKE)
def test_drawn(tmp_path, name):
    def make(**kwargs):
        return MAKE[name](str(tmp_path), **kwargs)

    few, many = make(num_graphs=3), make(num_graphs=5)
    for a, b in zip(few, many, strict=False):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)
        assert torch.equal(a.edge_index, b.edge_index)
    for other in (make(num_graphs=5, split='test'),
                  make(num_graphs=5, seed=1)):
        assert any(a.x.shape != b.x.shape or not torch.equal(a.x, b.x)
                   for a, b in zip(many, other, strict=True))
    batch = next(iter(DataLoader(many, batch_size=5)))
    assert batch.num_graphs == 5 and len(batch.y) == batch.num_nodes
    assert type(many).__name__ in repr(many)


def test_every_option_has_a_place_of_its_own(tmp_path):
    root, few = str(tmp_path), {'num_graphs': 2}
    sets = [make(root, **few, **option) for make in MAKE.values()
            for option in ({}, {'seed': 1}, {'split': 'val'})]
    sets += [RingTransfer(root, num_nodes=9, **few),
             RingTransfer(root, num_classes=6, **few),
             TreeNeighborsMatch(root, depth=2, **few),
             RingTransfer(root, num_graphs=1)]
    assert len({data.processed_paths[0] for data in sets}) == len(sets)


def test_seeds_have_patterns_of_their_own():
    def patterns(seed: int) -> set:
        found = set()
        for i in range(60):
            data = make_pattern(torch.Generator().manual_seed(i), seed)
            found.add(tuple(data.x[data.y == 1, 0].tolist()))
        return found

    assert not patterns(0) & patterns(1)


@pytest.mark.parametrize('name', MAKE)
def test_drawn_errors(tmp_path, name):
    with pytest.raises(ValueError, match=r"'split'.*got 'all'"):
        MAKE[name](str(tmp_path), split='all')
    with pytest.raises(ValueError, match=r"'num_graphs'.*got 0"):
        MAKE[name](str(tmp_path), num_graphs=0)


def test_errors(tmp_path):
    root = str(tmp_path)
    with pytest.raises(ValueError, match=r"'num_nodes'.*got 2"):
        RingTransfer(root, num_nodes=2)
    with pytest.raises(ValueError, match=r"'num_classes'.*got 1"):
        RingTransfer(root, num_classes=1)
    with pytest.raises(ValueError, match=r"'depth'.*got 0"):
        TreeNeighborsMatch(root, depth=0)
    with pytest.raises(ValueError, match=r"'name'.*got 'cluster'"):
        SBMClustering(root, 'cluster')


def test_graphs_are_kept_by_all_options_of_a_transform(tmp_path):
    r"""Though PyG's transforms print without them."""
    for dim in (2, 4):
        dataset = RingTransfer(str(tmp_path), num_graphs=2,
                               pre_transform=AddRandomWalkPE(dim, 'pos'))
        assert dataset[0].pos.shape == (10, dim)
