r"""A GPS layer with attention in balls against PyG's, which attends to all."""

import resource
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
NAMES = {'ours': 'ErwinGPSConv', 'multihead': 'GPSConv',
         'performer': 'GPSConv, performer'}
LONG = 20.  # seconds from which on one step will do
GB = 10**9
INPUT = 4 * (CHANNELS + 3) + 16 * K  # bytes of features and edges of a node


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
    kwargs = {}
    if name == 'performer':  # 64 channels for each head, if not
        kwargs['head_channels'] = CHANNELS // HEADS
    theirs = GPSConv(CHANNELS, conv, HEADS, attn_type=name,
                     attn_kwargs=kwargs)
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


def try_memory(name: str, num_nodes: int, limit: int) -> None:
    r"""Prints whether a step fits where no more memory is to be had."""
    step(name, 100)()  # what everybody needs, and threads' stacks
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        step(name, num_nodes)()
    except (RuntimeError, MemoryError) as error:
        if 'alloc' not in str(error) and not isinstance(error, MemoryError):
            raise
        print(0)
    else:
        print(1)


def in_process(name: str, num_nodes: int, seconds: float,
               threads: int) -> tuple[float, int]:
    found, extra = apart('benchmarks.speed.gps', threads, 'measure', name,
                         num_nodes, seconds).split()
    return float(found), int(extra)


def fits(name: str, num_nodes: int, limit: int, threads: int) -> bool:
    return apart('benchmarks.speed.gps', threads, 'try_memory', name,
                 num_nodes, limit).strip() == '1'


def largest(name: str, limit: int, threads: int, tolerance: float = 0.1,
            start: int = 100_000) -> int:
    r"""Returns how many nodes fit in memory, found by trying."""
    low, high = 0, start
    while fits(name, high, limit, threads):
        low, high = high, 2 * high
    while high - low > tolerance * high:
        middle = (low + high) // 2
        low, high = ((middle, high) if fits(name, middle, limit, threads)
                     else (low, middle))
    return low


def show(seconds: float | None, extra: int | None) -> tuple[str, str]:
    if seconds is None or extra is None:
        return 'not run', ''
    return milliseconds(seconds), f'{extra / 1e6:,.0f} MB'


def growth(found: dict[int, tuple[float, int]], which: int) -> str:
    large = [n for n in found if n >= 10_000]
    if len(large) < 2:
        return ''
    return f'{fit_exponent(large, [found[n][which] for n in large]):.2f}'


def main(
    sizes: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000,
                              1_000_000),
    seconds: float = 5.,
    longest: float = 200.,
    memory: float = 4.,
    threads: int = 2,
    out: Path | None = None,
) -> None:
    r"""Times GPS layers, each row in processes of its own.

    Args:
        sizes: Numbers of nodes.
        seconds: For how long to repeat a step.
        longest: A step that should take longer, by those before, is not run.
        memory: Where memory is limited, in GB, how many nodes fit; zero
            leaves that out.
        threads: Number of threads.
        out: Where to write the tables, as markdown, and as CSV beside it.
    """
    facts = [machine(), versions(['torch', 'torch-geometric',
                                  'torch-geometric-erwin']),
             f'threads: {threading(threads)}']
    check()
    found: dict[str, dict[int, tuple[float, int]]] = {
        name: {} for name in NAMES}
    for n in sizes:
        for name, rows in found.items():
            if expected(rows, n) <= longest:
                rows[n] = in_process(name, n, seconds, threads)
    tables = [make_table(sizes, found)]
    if memory > 0:
        tables.append(make_memory_table(found, memory, longest, threads))
    console = Console()
    console.print('\n'.join(facts))
    for table in tables:
        table.print(console)
    if out is not None:
        write(out, 'GPS layers', facts, tables,
              command('benchmarks.speed.gps'))
        write_csv(out.with_suffix('.csv'), found)


def expected(rows: dict[int, tuple[float, int]], num_nodes: int) -> float:
    r"""Returns how long a step will take, going by its growth so far."""
    if len(rows) < 2:
        return 0.
    (m, (before, _)), (n, (last, _)) = list(rows.items())[-2:]
    power = max(fit_exponent([m, n], [before, last]), 1.)
    return last * (num_nodes / n)**power


def make_table(sizes: tuple[int, ...],
               found: dict[str, dict[int, tuple[float, int]]]) -> Table:
    table = Table(
        'GPS layers: forward and backward',
        ['nodes', *NAMES.values(), 'ratio', 'ratio, performer', 'memory',
         *list(NAMES.values())[1:]],
        f'{CHANNELS} channels, {HEADS} heads, GCNConv on {K} nearest '
        'neighbours, one cloud, float32. Ours includes building the tree '
        '(balls of 128). Steps that would take too long are not run.')
    for n in sizes:
        cells = {name: rows.get(n, (None, None))
                 for name, rows in found.items()}
        ours = cells['ours'][0]
        shown = {name: show(*cell) for name, cell in cells.items()}
        ratios = ['' if ours is None or cells[name][0] is None else
                  times(cells[name][0] / ours)
                  for name in ('multihead', 'performer')]
        table.rows.append([f'{n:,}', *(shown[name][0] for name in NAMES),
                           *ratios, *(shown[name][1] for name in NAMES)])
    table.rows.append(['β of n^β, from 10,000',
                       *(growth(rows, 0) for rows in found.values()), '', '',
                       *(growth(rows, 1) for rows in found.values())])
    return table


def make_memory_table(found: dict[str, dict[int, tuple[float, int]]],
                      memory: float, longest: float, threads: int) -> Table:
    table = Table(
        f'How many nodes fit in {memory:g} GB', ['layer', 'nodes', 'time'],
        'The most for which forward and backward end without running out of '
        'memory, to a tenth, in a process that may take no more. The time is '
        'what the growth above gives for so many.')
    base = int(apart('benchmarks.speed.gps', threads, 'base'))
    for name, label in NAMES.items():
        # Dense attention would take hours to find out.
        rows = found[name]
        per_node = max(extra / n for n, (_, extra) in rows.items()
                       if n == max(rows))
        estimate = max(int((memory * GB - base) / (per_node + INPUT)), 1)
        if expected(rows, estimate) > longest:
            table.rows.append([label, f'about {estimate:,}, by the growth of '
                               f'its memory',
                               milliseconds(expected(rows, estimate))])
            continue
        most = largest(name, int(memory * GB), threads)
        table.rows.append([label, f'{most:,}',
                           milliseconds(expected(rows, most))])
    return table


def write_csv(path: Path,
              found: dict[str, dict[int, tuple[float, int]]]) -> None:
    lines = ['layer,nodes,seconds,bytes']
    lines += [f'"{NAMES[name]}",{n},{seconds:.6f},{extra}'
              for name, rows in found.items()
              for n, (seconds, extra) in rows.items()]
    path.write_text('\n'.join(lines) + '\n')


def base() -> None:
    r"""Prints how much memory counts before there are nodes."""
    step('multihead', 100)()
    print(status('VmData'))


COMMANDS = {
    'base': base,
    'measure': lambda name, n, seconds: measure(name, int(n), float(seconds)),
    'try_memory': lambda name, n, limit: try_memory(name, int(n), int(limit)),
}

if __name__ == '__main__':
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    else:
        auto_cli(main, as_positional=False)
