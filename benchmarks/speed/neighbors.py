r"""The tables of the neighbour search."""

import functools
import importlib.util
import math
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.speed.builders import clouds
from benchmarks.speed.compare import compare
from benchmarks.speed.report import Table
from benchmarks.speed.timing import Contender, Rounds
from torch_geometric_erwin import knn_graph, radius_graph

K = 16
# Rows are the cells' vectors, in lengths of their edges.
CELLS = {'open': None, 'orthorhombic': [[1., 0, 0], [0, 1, 0], [0, 0, 1]],
         'triclinic': [[1., 0, 0], [.3, 1, 0], [.2, -.25, 1]]}


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


def crystal(kind: str, n: int) -> tuple[Tensor, Tensor | None, Tensor]:
    r"""Atoms of one per unit of volume, their cell, and what holds them."""
    vectors = torch.tensor(CELLS[kind] or CELLS['orthorhombic'],
                           dtype=torch.float64) * n**(1 / 3)
    generator = torch.Generator().manual_seed(n)
    at = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    cell = None if kind == 'open' else vectors[None]
    return (at @ vectors).float(), cell, vectors


def ours_shifted(pos: Tensor, r: float, cell: Tensor | None) -> Any:
    if cell is not None and not (cell - cell.mT).any():
        cell = cell.diagonal(dim1=1, dim2=2)  # as users would give it
    return radius_graph(pos, r, box=cell, return_shift=True)


def matscipy_list(pos: Tensor, r: float, cell: Tensor | None,
                  vectors: Tensor) -> Any:
    from matscipy.neighbours import neighbour_list
    x = pos.double().numpy()
    return neighbour_list('ijS', positions=x, cutoff=r,
                          cell=vectors.numpy(), pbc=3 * [cell is not None])


def vesin_list(pos: Tensor, r: float, cell: Tensor | None,
               vectors: Tensor) -> Any:
    from vesin import NeighborList
    return NeighborList(cutoff=r, full_list=True).compute(
        points=pos.double().numpy(), box=vectors.numpy(),
        periodic=cell is not None, quantities='ijS')


def ase_list(pos: Tensor, r: float, cell: Tensor | None,
             vectors: Tensor) -> Any:
    from ase.neighborlist import primitive_neighbor_list
    return primitive_neighbor_list('ijS', 3 * [cell is not None],
                                   vectors.numpy(), pos.double().numpy(), r)


PEERS = {'vesin': vesin_list, 'matscipy': matscipy_list}


def codes(i: Any, j: Any, shift: Any) -> np.ndarray:
    r"""Edges as sorted rows of center, neighbour and shift."""
    rows = np.column_stack([i, j, shift]).astype(np.int64)
    return rows[np.lexsort(rows.T)]


@functools.cache
def check_images(kind: str, n: int, mean: int) -> None:
    r"""Edges and shifts must be those of vesin and, of a small crystal, of
    ASE, but where rounding decides.
    """
    pos, cell, vectors = crystal(kind, n)
    r = reach(mean)
    (source, target), shift = ours_shifted(pos, r, cell)
    own = codes(target, source, shift)
    for peer in [vesin_list] + [ase_list] * (n <= 2000):
        both = np.concatenate([own, codes(*peer(pos, r, cell, vectors))])
        rows, count = np.unique(both, axis=0, return_counts=True)
        odd = torch.from_numpy(rows[count == 1])
        x = pos.double()
        far = (x[odd[:, 1]] - x[odd[:, 0]]
               + odd[:, 2:].double() @ vectors).norm(dim=1)
        if len(np.unique(own, axis=0)) < len(own) or bool(
                ((far - r).abs() > 1e-5 * r).any()):
            raise RuntimeError(f'Correctness gate: neighbours of {n} atoms '
                               f'({kind}) differ from those of {peer}')


def reach(mean: int) -> float:
    r"""The radius that so many atoms of one per unit of volume are in."""
    return (mean * 3 / (4 * math.pi))**(1 / 3)


def neighbors_shifts(rounds: Rounds, quick: bool, threads: int) -> Table:
    peers = {name: peer for name, peer in PEERS.items()
             if importlib.util.find_spec(name)}
    table = Table(
        'Neighbours with shifts: radius_graph',
        ['atoms, mean neighbours, cell', 'ours', *peers,
         *(f'ratio to {name}' for name in peers), 'paired', 'aim', 'rounds'],
        'Ours has float32 positions and sorts each atom\'s neighbours by '
        'distance; peers have one thread, float64 and sort nothing.')
    for n in [1000, 10_000, 100_000] + ([] if quick else [1_000_000]):
        for mean in (16, 50) if n < 1_000_000 else (16, ):
            for kind in CELLS:
                check_images(kind, min(n, 20_000), mean)
                args, r = crystal(kind, n), reach(mean)
                wide = args[0].double()  # peers convert it in no time
                compare(table, f'{n:,}, {mean}, {kind}', {
                    'ours': lambda a=args, r=r: ours_shifted(a[0], r, a[1]),
                    **{name: lambda p=peer, x=wide, a=args, r=r: p(
                        x, r, *a[1:]) for name, peer in peers.items()},
                }, rounds, 1., list(peers))
    return table
