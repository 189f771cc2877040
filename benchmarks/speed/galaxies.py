r"""A model on a cloud of 1,235,904 galaxies: time and memory of a pass.

Run it as :obj:`python -m benchmarks.speed.galaxies --help`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor

from benchmarks.speed.checks import check_tree, require
from benchmarks.speed.process import forget_peak, status
from benchmarks.speed.report import (
    Table,
    command,
    machine,
    threading,
    versions,
    write,
)
from benchmarks.speed.timing import Contender, fit_exponent, timed
from torch_geometric_erwin import BallTree, ErwinTransformer
from torch_geometric_erwin.datasets import GalaxyMock
from torch_geometric_erwin.nn import BallAttention

K = 8
CONFIG: dict[str, Any] = {
    'in_channels': 1, 'hidden_channels': [16, 32, 64, 128],
    'out_channels': 3, 'depths': 4 * [2], 'heads': [2, 4, 8, 16],
    'ball_sizes': 4 * [128], 'strides': 3 * [4], 'mp_steps': 1}
PARTS = (100, 10, 1)  # one galaxy in so many
STEPS = ('tree', 'neighbours', 'forward')


class Cloud(NamedTuple):
    x: Tensor
    pos: Tensor
    box: Tensor


def galaxies(root: str, path: str, part: int) -> Cloud:
    r"""Draws one galaxy in :obj:`part` from the whole box. Lengths are in
    units of the mean distance, so that attention reaches others at any
    density.
    """
    data = GalaxyMock(root, path)[0]
    rng = torch.Generator().manual_seed(0)
    order = torch.randperm(data.num_nodes, generator=rng)
    pos = data.pos[order[:data.num_nodes // part].sort()[0]]
    unit = (data.box.prod() / len(pos))**(1 / 3)
    return Cloud(torch.ones(len(pos), 1), pos / unit, data.box / unit)


def make_model() -> ErwinTransformer:
    r"""Weights are larger than the model's own initial ones, so that each
    of its parts shows in the output.
    """
    torch.manual_seed(0)
    model = ErwinTransformer(**CONFIG).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.xavier_uniform_(weight)
    return model


def build(model: ErwinTransformer, cloud: Cloud) -> BallTree:
    return model.build_tree(cloud.pos, box=cloud.box)


@torch.no_grad()
def compute(model: ErwinTransformer, cloud: Cloud) -> dict[str, Tensor]:
    r"""Returns what two ways to the same result have to agree in."""
    tree = build(model, cloud)
    check_tree(tree, tree.batch)
    edge_index = tree.knn_graph(K)
    out = model(cloud.x, tree, edge_index)
    require(bool(out.isfinite().all()), 'an output is not finite')
    return {'order': tree.partition(1).index, 'edges': edge_index,
            'output': out}


def compute_plainly(root: str, path: str, part: str, file: str) -> None:
    r"""Lets attention pass messages edge by edge."""
    model = make_model()
    for module in model.modules():
        if isinstance(module, BallAttention):
            module.register_message_forward_hook(lambda *_: None)
    torch.save(compute(model, galaxies(root, path, int(part))), file)


def check(root: str, path: str, part: int, threads: int) -> str:
    r"""Compares with pure torch and with attention edge by edge."""
    ours = compute(make_model(), galaxies(root, path, part))
    file = os.path.join(root, 'plain.pt')
    start('plain', root, path, part, file, OMP_NUM_THREADS=threads,
          TORCH_GEOMETRIC_ERWIN_NATIVE=0)
    plain = torch.load(file)
    for key in ('order', 'edges'):
        require(torch.equal(ours[key], plain[key]), f'{key} differ')
    a, b = ours['output'], plain['output']
    error = float((a - b).abs().max() / b.abs().max())
    require(error < 1e-4, f'outputs differ by {error:.1e}')
    return (f'checks: on {len(a):,} galaxies, tree and neighbours equal '
            f'those of pure torch, outputs those of attention edge by edge '
            f'(to {error:.0e}); all outputs are finite')


def measure_step(fn: Contender, repeats: int) -> tuple[float, int, int]:
    r"""Returns the median seconds of a step, but for the first; how far that
    one raises this process' memory, and its peak.
    """
    forget_peak()
    before = status('VmRSS')
    timed(fn)
    peak = status('VmHWM')
    return median(timed(fn) for _ in range(repeats)), peak - before, peak


@torch.no_grad()
def measure(root: str, path: str, part: str, repeats: str) -> None:
    r"""Prints what :meth:`measure_step` finds for each step."""
    model = make_model()
    compute(model, galaxies(root, path, PARTS[0]))  # warms up
    cloud = galaxies(root, path, int(part))
    tree = build(model, cloud)
    check_tree(tree, tree.batch)
    edge_index = tree.knn_graph(K)

    def forward() -> None:
        out = model(cloud.x, tree, edge_index)
        require(bool(out.isfinite().all()), 'an output is not finite')

    found = [measure_step(step, int(repeats)) for step in (
        lambda: build(model, cloud), lambda: tree.knn_graph(K), forward)]
    print(json.dumps([len(cloud.pos), *zip(*found, strict=True)]))


def start(*args: object, **env: object) -> str:
    r"""Runs a part of this file in a process of its own."""
    line = [sys.executable, '-m', 'benchmarks.speed.galaxies']
    return subprocess.run(
        [*line, *map(str, args)], check=True, text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **{k: str(v) for k, v in env.items()}}).stdout


def describe_model() -> str:
    number = sum(x.numel() for x in make_model().parameters())
    return (f'model: ErwinTransformer, {number:,} parameters, ' + ', '.join(
        f'{key} {CONFIG[key]}' for key in (
            'hidden_channels', 'depths', 'heads', 'ball_sizes', 'strides',
            'mp_steps')))


def seconds(value: float) -> str:
    return f'{value:,.{1 if value >= 10 else 2 if value >= 1 else 4}f} s'


def make_tables() -> tuple[Table, Table]:
    return Table(
        'Time', ['galaxies', *STEPS, 'all'],
        'One periodic cloud of mock galaxies (Mr < -19, 420 Mpc/h), float32; '
        'fewer galaxies are drawn from it at random. The tree has all levels '
        f'and orientations; neighbours are {K} for each galaxy; the forward '
        'pass, in evaluation mode and without gradients, is given both.',
    ), Table(
        'Memory', ['galaxies', *STEPS, 'whole process'],
        'How far a step raises the peak, its result included; the peak of '
        'the whole process, with torch, the galaxies, tree and neighbours.')


def fill(tables: tuple[Table, Table], found: list[list[Any]]) -> None:
    time, memory = tables
    numbers = [row[0] for row in found]
    columns = []
    for number, times, extra, peaks in found:
        columns.append([*times, sum(times)])
        time.rows.append([f'{number:,}', *map(seconds, columns[-1])])
        memory.rows.append([f'{number:,}', *(
            f'{x / 1e6:,.0f} MB' for x in [*extra, max(peaks)])])
    betas = [fit_exponent(numbers, x) for x in zip(*columns, strict=True)]
    time.rows.append(['β of t ∝ n^β', *(f'{beta:.2f}' for beta in betas)])


def main(
    path: Path,
    repeats: int = 3,
    threads: int = 2,
    out: Path | None = None,
) -> None:
    r"""Measures a small model on mock galaxies, each row in a process of its
    own.

    Args:
        path: Corrfunc's source package, or the file of galaxies in it; see
            :obj:`torch_geometric_erwin.datasets.GalaxyMock`.
        repeats: How often to repeat a step after its first time.
        threads: Number of threads.
        out: Where to write the tables, as markdown.
    """
    facts = [machine(), versions(['torch', 'torch-geometric',
                                  'torch-geometric-erwin']),
             f'threads: {threading(threads)}', describe_model()]
    torch.set_num_threads(threads)
    tables = make_tables()
    with TemporaryDirectory() as root:
        facts.append(check(root, str(path), PARTS[0], threads))
        fill(tables, [
            json.loads(start('measure', root, path, part, repeats,
                             OMP_NUM_THREADS=threads)) for part in PARTS])
    console = Console()
    console.print('\n'.join(facts))
    for table in tables:
        table.print(console)
    if out is not None:
        write(out, 'Galaxies', facts, tables,
              command('benchmarks.speed.galaxies'))


if __name__ == '__main__':
    if sys.argv[1:2] == ['plain']:
        compute_plainly(*sys.argv[2:])
    elif sys.argv[1:2] == ['measure']:
        measure(*sys.argv[2:])
    else:
        auto_cli(main, as_positional=False)
