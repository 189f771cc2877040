r"""The tables of the neighbour search."""

import importlib.util
import math

from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.speed.builders import clouds
from benchmarks.speed.compare import compare
from benchmarks.speed.report import Table
from benchmarks.speed.timing import Contender, Rounds
from torch_geometric_erwin import knn_graph, radius_graph

K = 16


def neighbor_sizes(quick: bool) -> list[int]:
    return [10_000, 100_000] + ([] if quick else [1_000_000])


def knn_contenders(pos: Tensor, threads: int) -> dict[str, Contender]:
    x = pos.double().numpy()
    tree = cKDTree(x)

    def query(tree: cKDTree) -> object:
        return tree.query(x, k=K + 1, workers=threads)

    found = {'ours': lambda: knn_graph(pos, K),
             'query': lambda: query(tree),
             'build + query': lambda: query(cKDTree(x))}
    if importlib.util.find_spec('torch_cluster'):
        from torch_cluster import knn_graph as cluster
        found['cluster'] = lambda: cluster(pos, K, num_workers=threads)
    return found


def neighbors_knn(rounds: Rounds, quick: bool, threads: int) -> Table:
    heads = ['cKDTree query', 'cKDTree build + query']
    cluster = bool(importlib.util.find_spec('torch_cluster'))
    heads += ['torch-cluster'] * cluster
    table = Table(
        f'Neighbours: knn_graph, k = {K}',
        ['points', 'ours', *heads, 'ratio to query', 'to build + query',
         *['to torch-cluster'] * cluster, 'paired to query', 'aim', 'rounds'],
        f'Ours builds its tree in this time. cKDTree has workers={threads}, '
        'float64 and its default leaves.')
    for n in neighbor_sizes(quick):
        pos = clouds(1, n)[0]
        contenders = knn_contenders(pos, threads)
        compare(table, f'{n:,}', contenders, rounds, 1.,
                [name for name in contenders if name != 'ours'])
    return table


def neighbors_radius(rounds: Rounds, quick: bool, threads: int) -> Table:
    table = Table(
        f'Neighbours: radius_graph, about {K} each',
        ['points', 'ours', 'cKDTree query_pairs', 'build + query_pairs',
         'ratio to query_pairs', 'to build + query_pairs',
         'paired to query_pairs', 'aim', 'rounds'],
        'Ours builds its tree and returns each pair both ways; query_pairs '
        'returns it once, with one thread.')
    for n in neighbor_sizes(quick):
        pos = clouds(1, n)[0]
        x, r = pos.double().numpy(), (K / (n * 4 / 3 * math.pi))**(1 / 3)
        tree = cKDTree(x)
        compare(table, f'{n:,}', {
            'ours': lambda p=pos, r=r: radius_graph(p, r),
            'query': lambda t=tree, r=r: t.query_pairs(
                r, output_type='ndarray'),
            'build + query': lambda x=x, r=r: cKDTree(x).query_pairs(
                r, output_type='ndarray'),
        }, rounds, 1., ['query', 'build + query'])
    return table
