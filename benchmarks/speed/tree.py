r"""Ball trees and neighbour search against their peers, on the CPU.

Run it as :obj:`python -m benchmarks.speed.tree --help`.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from threadpoolctl import threadpool_limits

from benchmarks.speed import builders
from benchmarks.speed.checks import gate
from benchmarks.speed.compare import compare
from benchmarks.speed.memory import measure
from benchmarks.speed.neighbors import (
    neighbors_knn,
    neighbors_radius,
    neighbors_shifts,
)
from benchmarks.speed.report import (
    Table,
    command,
    machine,
    threading,
    versions,
    write,
)
from benchmarks.speed.timing import Rounds, fit_exponent

PACKAGES = ('torch', 'torch-geometric', 'torch-geometric-erwin',
            'balltree-erwin', 'scikit-learn', 'scipy', 'torch-cluster',
            'vesin', 'matscipy', 'ase')
SIZES = ((16, 1024), (16, 16384), (1, 100_000), (1, 1_000_000))
BUILD_AIMS = {(16, 16384): 2.5, (1, 1_000_000): 4.}


def small(quick: bool) -> list[tuple[int, int]]:
    return [(b, n) for b, n in SIZES if not quick or b * n <= 300_000]


def label(num_clouds: int, num_points: int) -> str:
    return f'{num_clouds} x {num_points:,}'


def build(rounds: Rounds, quick: bool, threads: int) -> Table:
    table = Table(
        'Build, down to single points',
        ['clouds x points', 'ours', 'ours, ptr=', 'balltree-erwin', 'sklearn',
         'cKDTree', 'ratio', 'paired', 'aim', 'rounds'],
        'Ratios are to balltree-erwin, which takes the same pos and batch '
        'and uses threads over clouds only. sklearn and cKDTree build with '
        'one thread, one tree per cloud, from float64.')
    for size in small(quick):
        pos, batch, ptr = builders.clouds(*size)
        compare(table, label(*size), {
            'ours': lambda p=pos, b=batch: builders.ours(p, b),
            'ours, ptr=': lambda p=pos, i=ptr: builders.ours_ptr(p, i),
            'peer': lambda p=pos, b=batch: builders.peer(p, b),
            'sklearn': builders.sklearn_tree(pos, ptr),
            'cKDTree': builders.scipy_tree(pos, ptr),
        }, rounds, BUILD_AIMS.get(size, 1.), ['peer'])
    return table


def rotations(rounds: Rounds, quick: bool, threads: int) -> Table:
    table = Table(
        'Four levels with a rotated partition each',
        ['clouds x points', 'ours', 'balltree-erwin', 'ratio', 'paired',
         'aim', 'rounds'],
        f'Balls of {builders.BALL_SIZE}, strides {builders.STRIDES}, 45°.')
    for size in small(quick):
        pos, batch, _ = builders.clouds(*size)
        compare(table, label(*size), {
            'ours': lambda p=pos, b=batch: builders.ours_rotated(p, b),
            'peer': lambda p=pos, b=batch: builders.peer_rotated(p, b),
        }, rounds, 4., ['peer'])
    return table


def growth(rounds: Rounds, quick: bool, threads: int) -> Table:
    table = Table(
        'Growth: one cloud',
        ['points', 'ours', 'balltree-erwin', 'ratio', 'paired', 'aim',
         'rounds'])
    sizes = [10**i for i in range(3, 6 if quick else 8)]
    medians = []
    for n in sizes:
        pos, batch, _ = builders.clouds(1, n)
        medians.append(compare(table, f'{n:,}', {
            'ours': lambda p=pos, b=batch: builders.ours(p, b),
            'peer': lambda p=pos, b=batch: builders.peer(p, b),
        }, rounds, 1., ['peer']))
    large = [i for i, n in enumerate(sizes) if n >= 10**4]
    beta = [fit_exponent([sizes[i] for i in large],
                         [medians[i][key] for i in large])
            for key in ('ours', 'peer')]
    table.rows.append(['exponent β', *(f'{b:.3f}' for b in beta),
                       '', '', '', ''])
    table.note = 'Least squares of log t over log n, from 10,000 points on.'
    return table


def memory(rounds: Rounds, quick: bool, threads: int) -> Table:
    n = 1_000_000
    table = Table(
        f'Peak extra memory of a build, 1 x {n:,} float32 points',
        ['builder', 'bytes per point', 'aim'],
        'How far one build raises the resident peak of a fresh process (the '
        'largest of three, with --quick one). The returned tensors count.')
    for name in builders.BUILDERS:
        peaks = [measure(name, n, threads) for _ in range(1 if quick else 3)]
        size = max(peaks) / n
        short = name == 'ours' and size > 64
        table.rows.append([name, f'{size:.1f}' + ' (short)' * short,
                           '≤ 64' if name == 'ours' else ''])
    return table


SECTIONS: dict[str, list[Callable[[Rounds, bool, int], Table]]] = {
    'build': [build],
    'rotations': [rotations],
    'growth': [growth],
    'neighbors': [neighbors_knn, neighbors_radius, neighbors_shifts],
    'memory': [memory],
}


def main(
    out: Path | None = None,
    quick: bool = False,
    threads: int = 2,
    repeats: int = 15,
    seconds: float = 30.,
    sections: str = ','.join(SECTIONS),
) -> None:
    r"""Compares the package's ball trees with their peers.

    Args:
        out: Where to write the tables as markdown.
        quick: Leaves out the large sizes.
        threads: The threads that everybody gets.
        repeats: The most rounds of a row.
        seconds: No further round of a row starts after this long (from the
            third on).
        sections: What to run, separated by commas.
    """
    chosen = sections.split(',')
    if unknown := set(chosen) - set(SECTIONS):
        raise ValueError(f"Expected 'sections' to be among {list(SECTIONS)} "
                         f"(got {sorted(unknown)})")
    torch.set_num_threads(threads)
    console, tables = Console(), []
    with threadpool_limits(threads):
        facts = [f'Machine: {machine()}', f'Versions: {versions(PACKAGES)}',
                 f'Threads: {threading(threads)}',
                 f'Checked: {gate("neighbors" in chosen)}']
        console.print('\n'.join(facts), highlight=False)
        for section in chosen:
            for run in SECTIONS[section]:
                tables.append(run(Rounds(repeats, seconds), quick, threads))
                tables[-1].print(console)
    line = command('benchmarks.speed.tree')
    console.print(line, highlight=False)
    if out is not None:
        write(out, 'Ball trees', facts, tables, line)


if __name__ == '__main__':
    parser = ArgumentParser(prog='python -m benchmarks.speed.tree')
    parser.add_function_arguments(main, skip={'quick'})
    parser.add_argument('--quick', action='store_true',
                        help='Leaves out the large sizes.')
    main(**vars(parser.parse_args()))
