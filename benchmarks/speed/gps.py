r"""A GPS layer with attention in balls against PyG's, which attends to all."""

import sys
from pathlib import Path
from statistics import median

import torch
from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor
from torch_geometric.nn import GCNConv, GPSConv

from benchmarks.speed.process import apart, forget_peak, status
from benchmarks.speed.report import (
    Table,
    command,
    machine,
    milliseconds,
    threading,
    times,
    versions,
    write,
)
from benchmarks.speed.timing import Contender, fit_exponent, timed
from torch_geometric_erwin import BallTree, ErwinGPSConv, knn_graph

CHANNELS, HEADS, K = 64, 4, 8
LONG = 20.  # seconds from which on one step will do


def step(name: str, num_nodes: int) -> Contender:
    r"""Forward and backward of one layer; ours builds its tree, too."""
    torch.manual_seed(0)
    pos = torch.rand(num_nodes, 3)
    x = torch.randn(num_nodes, CHANNELS, requires_grad=True)
    edge_index = knn_graph(pos, K)
    conv = GCNConv(CHANNELS, CHANNELS)
    if name == 'ours':
        ours = ErwinGPSConv(CHANNELS, conv, HEADS)
        return lambda: ours(x, edge_index, BallTree.build(pos)).sum(
        ).backward()
    theirs = GPSConv(CHANNELS, conv, HEADS)
    return lambda: theirs(x, edge_index).sum().backward()


def check() -> None:
    r"""With one ball for all and no positions, ours is PyG's layer."""
    torch.manual_seed(0)
    pos, x = torch.rand(500, 3), torch.randn(500, CHANNELS)
    edge_index = knn_graph(pos, K)
    theirs = GPSConv(CHANNELS, GCNConv(CHANNELS, CHANNELS), HEADS)
    ours = ErwinGPSConv(CHANNELS, GCNConv(CHANNELS, CHANNELS), HEADS,
                        bias=None)
    with torch.no_grad():
        ours.attn.lin_pos.weight.zero_()
        ours.attn.lin_qkv.weight.copy_(theirs.attn.in_proj_weight)
        ours.attn.lin_qkv.bias.copy_(theirs.attn.in_proj_bias)
        ours.attn.lin_out.load_state_dict(theirs.attn.out_proj.state_dict())
        ours.conv.load_state_dict(theirs.conv.state_dict())
        ours.mlp.load_state_dict(theirs.mlp.state_dict())
    tree = BallTree.build(pos, ball_size=512)
    a: Tensor = ours(x, edge_index, tree)
    if not torch.allclose(a, theirs(x, edge_index), atol=1e-5):
        raise RuntimeError('The layers disagree where they should not.')


def measure(name: str, num_nodes: int, seconds: float) -> None:
    r"""Prints the median seconds of a step, but for the first, and how far
    that one raises this process' peak.
    """
    step(name, 100)()
    run = step(name, num_nodes)
    forget_peak()
    before = status('VmRSS')
    found = [timed(run)]
    extra = status('VmHWM') - before
    while sum(found[1:]) < seconds and found[0] < LONG:
        found.append(timed(run))
    print(median(found[1:] or found), extra)


def in_process(name: str, num_nodes: int, seconds: float,
               threads: int) -> tuple[float, int]:
    found, extra = apart('benchmarks.speed.gps', threads, 'measure', name,
                         num_nodes, seconds).split()
    return float(found), int(extra)


def main(
    sizes: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000, 100_000),
    seconds: float = 5.,
    threads: int = 2,
    out: Path | None = None,
) -> None:
    r"""Times GPS layers, each row in processes of its own.

    Args:
        sizes: Numbers of nodes.
        seconds: For how long to repeat a step.
        threads: Number of threads.
        out: Where to write the table, as markdown.
    """
    facts = [machine(), versions(['torch', 'torch-geometric',
                                  'torch-geometric-erwin']),
             f'threads: {threading(threads)}']
    check()
    table = Table(
        'GPS layers: forward and backward',
        ['nodes', 'ErwinGPSConv', 'GPSConv', 'ratio', 'memory', 'GPSConv'],
        f'{CHANNELS} channels, {HEADS} heads, GCNConv on {K} nearest '
        'neighbours, one cloud, float32. Ours includes building the tree '
        '(balls of 128).')
    rows = {}
    for n in sizes:
        rows[n] = [in_process(name, n, seconds, threads)
                   for name in ('ours', 'GPSConv')]
        (a, x), (b, y) = rows[n]
        table.rows.append([f'{n:,}', milliseconds(a), milliseconds(b),
                           times(b / a), f'{x / 1e6:,.0f} MB',
                           f'{y / 1e6:,.0f} MB'])
    large = [n for n in sizes if n >= 10_000]
    betas = [fit_exponent(large, [rows[n][i][0] for n in large])
             for i in range(2)]
    table.rows.append(['β of t ∝ n^β, from 10,000',
                       *(f'{beta:.2f}' for beta in betas), '', '', ''])
    console = Console()
    console.print('\n'.join(facts))
    table.print(console)
    if out is not None:
        write(out, 'GPS layers', facts, [table],
              command('benchmarks.speed.gps'))


if __name__ == '__main__':
    if sys.argv[1:2] == ['measure']:
        measure(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        auto_cli(main, as_positional=False)
