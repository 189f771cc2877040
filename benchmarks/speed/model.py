r"""The whole model against the authors' code and PyG's GPS layers.

Run it as :obj:`python -m benchmarks.speed.model --help`.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor
from torch_geometric.nn import GCNConv, GPSConv

from benchmarks.speed.compare import compare
from benchmarks.speed.erwin_models import (
    CONFIG,
    add_noise,
    cloud,
    describe,
    gradients,
    make_ours,
    make_pair,
    num_blocks,
)
from benchmarks.speed.process import apart, forget_peak, status
from benchmarks.speed.report import (
    Table,
    at_most,
    command,
    machine,
    threading,
    times,
    versions,
    write,
)
from benchmarks.speed.timing import Contender, Rounds, fit_exponent, timed
from torch_geometric_erwin import BallTree, knn_graph

MODULE = 'benchmarks.speed.model'
PACKAGES = ('torch', 'torch-geometric', 'torch-geometric-erwin',
            'balltree-erwin')
NAMES = {'ours': 'ours', 'authors': "authors'", 'gps': 'GPSConv'}
AIMS = {4_096: 2., 5_000: 3., 16_384: 2., 65_536: 3.}
LEAST = 1_025  # points, below which the authors' code has no coarsest ball
WIDTH, HEADS, K = 64, 4, 8  # of the GPS layers


class GPS(torch.nn.Module):
    r"""As many of PyG's GPS layers as our model has blocks."""
    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(CONFIG['c_in'], WIDTH)
        self.convs = torch.nn.ModuleList(
            GPSConv(WIDTH, GCNConv(WIDTH, WIDTH), HEADS)
            for _ in range(num_blocks()))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.lin(x)
        for conv in self.convs:
            x = conv(x, edge_index)
        return x


def make_step(name: str, num_points: int, backward: bool,
              official: str | None) -> Contender:
    r"""Ours and the authors' build their trees in each step."""
    x, pos = cloud(num_points)
    torch.manual_seed(0)
    model: Any
    if name == 'gps':
        model, edge_index = GPS(), knn_graph(pos, K)
        args: tuple[Any, ...] = (x, edge_index)
    elif name == 'authors':
        assert official is not None
        model = make_pair(official)[1]
        args = x, pos, torch.zeros(num_points, dtype=torch.long)
    else:
        model = make_ours() if official is None else make_pair(official)[0]
        args = (x, )
    more = {'pos': pos} if name == 'ours' else {}
    if backward:
        return gradients(model, lambda: model(*args, **more))
    model.eval()

    def forward() -> Tensor:
        with torch.no_grad():
            return model(*args, **more)

    return forward


def check(official: str | None, num_points: int) -> str:
    if official is None:
        return f'checks: {check_batch(num_points)}'
    return f'checks: {check_official(official, num_points)}'


def require_close(a: Tensor, b: Tensor, what: str) -> float:
    error = ((a - b).abs().max() / b.abs().max()).item()
    if not error < 1e-4:
        raise RuntimeError(f'{what} differ by {error:.1e}')
    return error


@torch.no_grad()
def check_batch(num_points: int) -> str:
    model = make_ours().eval()
    add_noise(model, 0.1)
    x, pos = cloud(2 * num_points)
    batch = torch.arange(2 * num_points) // num_points
    together = model(x, pos=pos, batch=batch)
    alone = torch.cat([model(a, pos=b) for a, b in zip(
        x.split(num_points), pos.split(num_points), strict=True)])
    error = require_close(together, alone, 'Clouds of a batch')
    return (f'two clouds of {num_points:,} points in a batch give what each '
            f'gives alone (to {error:.0e} of the largest)')


def check_official(official: str, num_points: int) -> str:
    r"""The same outputs and gradients on the authors' tree."""
    from balltree import build_balltree_with_rotations

    ours, theirs = (x.eval() for x in make_pair(official, noise=0.1))
    x, pos = cloud(num_points)
    x.requires_grad_()
    batch = torch.zeros(num_points, dtype=torch.long)
    index, mask, rotated = build_balltree_with_rotations(
        pos, batch, *(CONFIG[key] for key in ('strides', 'ball_sizes',
                                              'rotate')))
    tree = BallTree.from_permutation(
        pos, batch, index, mask, ball_size=CONFIG['ball_sizes'],
        strides=CONFIG['strides'], rotated=list(rotated), virtual='copy')
    outs = [ours(x, tree), theirs(x, pos, batch, tree_idx=index,
                                  tree_mask=mask, tree_idx_rot=list(rotated))]
    errors = [require_close(*outs, 'Outputs'),
              require_close(*(torch.autograd.grad(out.sum(), x)[0]
                              for out in outs), 'Gradients')]
    return (f"on the authors' tree of {num_points:,} points outputs and "
            f"gradients equal those of the authors' code (to "
            f"{max(errors):.0e} of the largest)")


def measure(name: str, num_points: int, backward: bool, seconds: float,
            official: str | None) -> None:
    r"""Prints the median seconds of a step, but for the first, and how far
    that one raises this process' peak.
    """
    make_step(name, LEAST, backward, official)()
    run = make_step(name, num_points, backward, official)
    forget_peak()
    before = status('VmRSS')
    timed(run)
    extra = status('VmHWM') - before
    found: list[float] = []
    while seconds and (not found or sum(found) < seconds):
        found.append(timed(run))
    print(json.dumps([median(found) if found else 0., extra]))


def measure_apart(name: str, num_points: int, backward: bool, seconds: float,
                  official: str | None, threads: int) -> tuple[float, int]:
    args = json.dumps([name, num_points, backward, seconds, official])
    return json.loads(apart(MODULE, threads, 'measure', args))


def speed(sizes: tuple[int, ...], backward: bool, official: str | None,
          rounds: Rounds, limit: float) -> Table:
    names = [name for name in NAMES if official or name != 'authors']
    peers = names[1:]
    table = Table(
        'Forward and backward' if backward else 'Forward',
        ['points', *(NAMES[name] for name in names),
         *(f'{NAMES[name]} / ours' for name in peers), 'paired', 'aim',
         'rounds'],
        f"One cloud, float32, {'in training, to all weights' * backward}"
        f"{'in evaluation, no gradients' * (not backward)}. Ours and the "
        "authors' include building the tree: ours has the fewest balls, "
        'theirs a power of two of them, which makes a difference where the '
        'number of points is none; it takes no fewer than '
        f'{LEAST:,} points. GPSConv: {num_blocks()} of them, as many as our '
        f'model has blocks, {WIDTH} channels, {HEADS} heads, GCNConv on {K} '
        'nearest neighbours found before, attention to all points; left out '
        f'where a step would take more than {limit:g} s.')
    factor = 0.  # seconds of GPSConv over n²
    for n in sizes:
        without = {'authors': n < LEAST, 'gps': factor * n**2 > limit}
        steps = {name: None if without.get(name) else make_step(
            name, n, backward, official) for name in names}
        found = compare(table, f'{n:,}', steps, rounds,
                        AIMS.get(n) if official and backward else None, peers)
        factor = found['gps'] / n**2 if 'gps' in found else factor
    return table


def memory(sizes: tuple[int, ...], official: str | None,
           threads: int) -> Table:
    names = ['ours', *['authors'] * bool(official)]
    table = Table(
        'Memory, forward and backward',
        ['points', *(NAMES[name] for name in names),
         *["authors' / ours"] * bool(official)],
        'How far the first step raises the peak of a process of its own. '
        + "Aim: a third of the authors' at 65,536." * bool(official))
    for n in sizes:
        if n < LEAST:
            continue
        found = [measure_apart(name, n, True, 0., official, threads)[1]
                 for name in names]
        ratio = [times(x / found[0], 3. if n == 65_536 else None)
                 for x in found[1:]]
        table.rows.append([f'{n:,}', *(f'{x / 1e6:,.0f} MB' for x in found),
                           *ratio])
    return table


def growth(sizes: tuple[int, ...], seconds: float, threads: int) -> Table:
    table = Table(
        'Growth: forward of ours',
        ['points', 'time', 'µs per point', 'memory', 'bytes per point'],
        'One cloud, float32, in evaluation, no gradients, tree included, each '
        'size in a process of its own. Aim: time with β of at most 1.05.')
    found = [measure_apart('ours', n, False, seconds, None, threads)
             for n in sizes]
    for n, (time, extra) in zip(sizes, found, strict=True):
        table.rows.append([
            f'{n:,}', f'{time:,.3f} s', f'{time / n * 1e6:.1f}',
            f'{extra / 1e6:,.0f} MB', f'{extra / n:,.0f}'])
    beta, gamma = (fit_exponent(sizes, column)
                   for column in zip(*found, strict=True))
    table.rows.append(['exponent β of n^β', at_most(beta, 1.05), '',
                       f'{gamma:.2f}', ''])
    return table


def main(
    official: Path | None = None,
    sizes: tuple[int, ...] = (1_000, 4_096, 5_000, 16_384, 65_536),
    growth_sizes: tuple[int, ...] = (10_000, 30_000, 100_000, 300_000,
                                     1_000_000),
    check_size: int = 4_096,
    repeats: int = 9,
    seconds: float = 8.,
    limit: float = 5.,
    threads: int = 2,
    out: Path | None = None,
) -> None:
    r"""Times the whole model in the authors' configuration.

    Args:
        official: A clone of https://github.com/maxxxzdn/erwin to compare
            with.
        sizes: Numbers of points.
        growth_sizes: Numbers of points for the table of growth.
        check_size: Number of points of the correctness gate: with
            :obj:`official` a power of two from 2,048 on, because virtual
            slots, which the authors' code attends to, change results.
        repeats: The most rounds of a row.
        seconds: A row stops after this long.
        limit: Layers of GPSConv are left out where a step would take more
            seconds.
        threads: Number of threads.
        out: Where to write the tables, as markdown.
    """
    torch.set_num_threads(threads)
    path = None if official is None else str(official.resolve())
    facts = [machine(), versions(PACKAGES), f'threads: {threading(threads)}',
             f'model: {describe()}; '
             f'{sum(x.numel() for x in make_ours().parameters()):,} weights '
             f'(GPSConv: {sum(x.numel() for x in GPS().parameters()):,})',
             check(path, check_size)]
    console = Console()
    console.print('\n'.join(facts), highlight=False)
    rounds = Rounds(repeats, seconds)
    tables = []
    for backward in (True, False):
        tables.append(speed(sizes, backward, path, rounds, limit))
        tables[-1].print(console)
    tables.append(memory(sizes, path, threads))
    tables[-1].print(console)
    if growth_sizes:
        tables.append(growth(growth_sizes, seconds / 2, threads))
        tables[-1].print(console)
    if out is not None:
        write(out, 'The whole model', facts, tables, command(MODULE))


if __name__ == '__main__':
    if sys.argv[1:2] == ['measure']:
        measure(*json.loads(sys.argv[2]))
    else:
        auto_cli(main, as_positional=False)
