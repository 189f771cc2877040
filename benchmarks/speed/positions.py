r"""How long it takes to give positions to large graphs that have none."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli
from numpy.random import Generator
from rich.console import Console
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import AddLaplacianEigenvectorPE, BaseTransform
from torch_geometric.utils import get_laplacian, grid, to_undirected

from benchmarks.speed.process import apart
from benchmarks.speed.report import Table, command, machine, versions, write
from torch_geometric_erwin.transforms import AddLaplacianPos, AddRandomWalkPos

# Nodes and citations of ogbn-arxiv.
NODES, CITATIONS, FIELDS = 169_343, 1_166_243, 40


def citations(chains: int = 0, length: int = 30) -> Data:
    r"""Papers of forty fields that cite earlier ones, mostly of their own
    field and much-cited ones, with as many nodes and citations as
    ogbn-arxiv; and, to make it hard, papers in chains, of which each cites
    the one before.
    """
    rng = np.random.default_rng(0)
    core = NODES - chains * length
    field = np.minimum((rng.random(core)**1.5 * FIELDS).astype(int),
                       FIELDS - 1)
    weight = np.minimum(rng.pareto(1.6, core) * 3.2, 300.) + 0.2
    citing = np.repeat(np.arange(core), spread(weight, rng, CITATIONS
                                               - chains * length))
    cited = choose(citing, field, rng)
    links = np.stack([citing, cited])
    new = core + np.arange(chains * length).reshape(chains, length)
    first = rng.integers(0, core, (chains, 1))
    before = np.concatenate([first, new[:, :-1]], axis=1)[:, :length]
    links = np.concatenate([links, [new.ravel(), before.ravel()]], axis=1)
    links = rng.permutation(NODES)[links[:, links[0] != links[1]]]
    return Data(edge_index=to_undirected(torch.from_numpy(links),
                                         num_nodes=NODES), num_nodes=NODES)


def spread(weight: np.ndarray, rng: Generator, total: int) -> np.ndarray:
    r"""Draws how often each paper cites."""
    return rng.multinomial(total, weight / weight.sum())


def choose(citing: np.ndarray, field: np.ndarray,
           rng: Generator) -> np.ndarray:
    r"""Draws an earlier paper for each citation, early ones rather."""
    order = np.argsort(field, kind='stable')
    start = np.searchsorted(field[order], np.arange(FIELDS))
    rank = np.empty(len(field), int)
    rank[order] = np.arange(len(field)) - start[field[order]]
    draw = rng.random(len(citing))**2.5
    own = start[field[citing]] + (draw * rank[citing]).astype(int)
    return np.where(rng.random(len(citing)) < 0.8, order[own],
                    (draw * citing).astype(int))


def mesh() -> Data:
    return Data(edge_index=without_loops(grid(400, 400)[0]),
                num_nodes=160_000)


def without_loops(edge_index: Tensor) -> Tensor:
    return edge_index[:, edge_index[0] != edge_index[1]]


def ring() -> Data:
    node = torch.arange(100_000)
    edge_index = torch.stack([node, (node + 1) % len(node)])
    return Data(edge_index=to_undirected(edge_index), num_nodes=len(node))


def random_tree() -> Data:
    rng = np.random.default_rng(0)
    child = np.arange(1, 100_000)
    parent = (rng.random(len(child)) * child).astype(int)
    edge_index = torch.from_numpy(np.stack([child, parent]))
    return Data(edge_index=to_undirected(edge_index), num_nodes=100_000)


GRAPHS: dict[str, Callable[[], Data]] = {
    'citations': citations,
    'citations, 500 chains': lambda: citations(500),
    'grid of 400 by 400': mesh,
    'ring': ring,
    'random tree': random_tree,
}
TRANSFORMS: dict[str, Callable[[], BaseTransform]] = {
    'AddLaplacianPos(8)': lambda: AddLaplacianPos(8),
    'AddLaplacianPos(16)': lambda: AddLaplacianPos(16),
    'AddRandomWalkPos(8)': lambda: AddRandomWalkPos(8),
    'PyG, 8': lambda: AddLaplacianEigenvectorPE(8, 'pos', True),
}


def residual(data: Data) -> float:
    r"""Returns by how much axes miss being eigenvectors, relative to their
    eigenvalues.
    """
    edges, weight = get_laplacian(data.edge_index, normalization='rw',
                                  num_nodes=data.num_nodes,
                                  dtype=torch.float64)
    matrix = torch.sparse_coo_tensor(edges, weight, 2 * [data.num_nodes])
    moved = matrix @ data.pos
    degree = torch.bincount(data.edge_index[0]).double().unsqueeze(1)
    pos = data.pos - (degree * data.pos).sum(dim=0) / degree.sum()
    value = (degree * pos * moved).sum(dim=0) / (degree * pos**2).sum(dim=0)
    return ((moved - value * pos).norm(dim=0)
            / (value * pos.norm(dim=0))).max().item()


def check() -> None:
    r"""On a connected graph, axes are eigenvectors."""
    data = AddLaplacianPos(8, dtype=torch.float64)(random_tree())
    if not residual(data) < 1e-4:
        raise RuntimeError('The positions are not eigenvectors.')


def measure(graph: str, transform: str) -> None:
    r"""Prints the seconds that a transform takes."""
    data, apply = GRAPHS[graph](), TRANSFORMS[transform]()
    start = time.perf_counter()
    try:
        apply(data)
    except Exception as error:  # PyG's may not converge
        print('failed:', type(error).__name__)
    else:
        print(f'{time.perf_counter() - start:.1f} s')


def main(
    graphs: tuple[str, ...] = tuple(GRAPHS),
    transforms: tuple[str, ...] = tuple(TRANSFORMS),
    longest: float = 300.,
    threads: int = 2,
    out: Path | None = None,
) -> None:
    r"""Times transforms, each in a process of its own.

    Args:
        graphs: Which graphs.
        transforms: Which transforms.
        longest: After so many seconds, a transform is stopped.
        threads: Number of threads.
        out: Where to write the table, as markdown.
    """
    facts = [machine(), versions(['torch', 'torch-geometric', 'scipy',
                                  'torch-geometric-erwin']),
             f'threads: {threads}, load average before '
             f'{os.getloadavg()[0]:.1f}']
    check()
    table = Table(
        'Positions for graphs', ['graph', 'nodes', 'edges', *transforms],
        'PyG\'s transform is AddLaplacianEigenvectorPE, for undirected '
        f'graphs; what took more than {longest:g} seconds was stopped. Once '
        f'each.')
    for name in graphs:
        data = GRAPHS[name]()
        found = [apart('benchmarks.speed.positions', threads, 'measure', name,
                       transform, seconds=longest).strip()
                 or f'> {longest:g} s' for transform in transforms]
        table.rows.append([name, f'{data.num_nodes:,}',
                           f'{data.num_edges // 2:,}', *found])
    console = Console()
    console.print('\n'.join(facts))
    table.print(console)
    if out is not None:
        write(out, 'Positions for graphs', facts, [table],
              command('benchmarks.speed.positions'))


if __name__ == '__main__':
    if sys.argv[1:2] == ['measure']:
        measure(sys.argv[2], sys.argv[3])
    else:
        auto_cli(main, as_positional=False)
