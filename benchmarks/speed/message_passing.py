r"""Message passing: `MPNNConv` against itself edge by edge, an Erwin block
and PyG's layers.
"""

import sys
from pathlib import Path
from statistics import median

import torch
from jsonargparse import auto_cli
from rich.console import Console

from benchmarks.speed.message_layers import LAYERS, MOST, Problem
from benchmarks.speed.process import apart, forget_peak, status
from benchmarks.speed.report import (
    Table,
    at_most,
    command,
    machine,
    milliseconds,
    threading,
    times,
    versions,
    write,
)
from benchmarks.speed.timing import Rounds, interleave
from torch_geometric_erwin.ops import native

AIMED = 10_000, 100_000  # nodes with 64 channels and 16 neighbors


def speed(cases: list[tuple[int, int, int]], rounds: Rounds) -> Table:
    table = Table(
        'Forward and backward',
        ['nodes', 'neighbors', 'channels', *LAYERS, 'edge by edge / ours',
         'ours / block', 'ours / GCNConv'],
        'Points uniform in the unit cube, in no order, float32. MPNNConv '
        'takes in what it has to find out about edges: vectors, and the list '
        "of each node's. The block: balls of 256, 4 heads, as GATConv and "
        'TransformerConv. Aims, with 64 channels and 16 neighbors at 10,000 '
        'and 100,000 nodes: at least 5 times as fast as edge by edge, no '
        'slower than the block, faster than GCNConv. Left out where edges '
        f'times channels exceed {MOST:.0e}: too much memory.')
    for nodes, k, channels in cases:
        problem = Problem(nodes, k, channels)
        steps = {name: problem.step(name) for name in LAYERS}
        found = {name: median(seconds) for name, seconds in interleave(
            {name: step for name, step in steps.items() if step is not None},
            rounds).items()}
        aimed = nodes in AIMED and (k, channels) == (16, 64)
        ours, most = found['MPNNConv'], 1. if aimed else torch.inf
        slow = found.get('edge by edge')
        table.rows.append([
            f'{nodes:,}', str(k), str(channels),
            *(milliseconds(found[name]) if name in found else ''
              for name in LAYERS),
            '' if slow is None else times(slow / ours, 5. if aimed else None),
            *(at_most(ours / found[name], most) if name in found else ''
              for name in ('Erwin block', 'GCNConv'))])
    return table


def peak(name: str, nodes: int, k: int, channels: int) -> None:
    r"""Prints how far a step raises this process' peak."""
    small = Problem(100, 4, channels).step(name)
    step = Problem(nodes, k, channels).step(name)
    assert small is not None and step is not None
    small()
    forget_peak()
    before = status('VmRSS')
    step()
    print(status('VmHWM') - before)


def memory(sizes: tuple[int, ...], k: int, channels: int,
           threads: int) -> Table:
    table = Table(
        'Extra memory, forward and backward',
        ['nodes', *LAYERS, 'ours / edge by edge'],
        f'{k} neighbors, {channels} channels: how far the peak of a process '
        'rises, gradients included. Aim: a fifth.')
    for nodes in sizes:
        found = [int(apart('benchmarks.speed.message_passing', threads,
                           'peak', name, nodes, k, channels))
                 for name in LAYERS]
        table.rows.append([f'{nodes:,}', *(f'{x / 1e6:,.1f} MB'
                                           for x in found),
                           at_most(found[0] / found[1], 0.2)])
    return table


def main(
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000),
    neighbors: tuple[int, ...] = (8, 32),
    channels: tuple[int, ...] = (16, 32, 128),
    memory_sizes: tuple[int, ...] = (10_000, 100_000),
    repeats: int = 7,
    seconds: float = 30.,
    threads: int = 2,
    out: Path | None = None,
) -> None:
    r"""Times message passing, the contenders in turn.

    Args:
        sizes: Numbers of nodes with 16 neighbors and 64 channels.
        neighbors: Other numbers of neighbors, for 10,000 nodes.
        channels: Other numbers of channels, for 10,000 nodes.
        memory_sizes: Numbers of nodes for the table of memory.
        repeats: The most rounds of a row.
        seconds: A row stops after this long.
        threads: Number of threads.
        out: Where to write the tables, as markdown.
    """
    torch.set_num_threads(threads)
    level = native.isa_level(native.widest())
    facts = [machine(), versions(['torch', 'torch-geometric',
                                  'torch-geometric-erwin']),
             f'threads: {threading(threads)}; PyTorch uses '
             f'{torch.backends.cpu.get_cpu_capability()}, kernels '
             f'{native.VECTORS[level]}']
    cases = [(n, 16, 64) for n in sizes]
    cases += [(10_000, k, 64) for k in neighbors]
    cases += [(10_000, 16, c) for c in channels]
    tables = [speed(cases, Rounds(repeats, seconds))]
    if memory_sizes:
        tables.append(memory(memory_sizes, 16, 64, threads))
    console = Console()
    console.print('\n'.join(facts))
    for table in tables:
        table.print(console)
    if out is not None:
        write(out, 'Message passing', facts, tables,
              command('benchmarks.speed.message_passing'))


if __name__ == '__main__':
    if sys.argv[1:2] == ['peak']:
        peak(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        auto_cli(main, as_positional=False)
