r"""Equivariant layers and models against plain ones of the same width.

Run it as :obj:`python -m benchmarks.speed.equivariant --help`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console

from benchmarks.speed.compare import compare
from benchmarks.speed.process import apart, forget_peak, status
from benchmarks.speed.report import (
    Table,
    command,
    machine,
    threading,
    versions,
    write,
)
from benchmarks.speed.timing import Contender, Rounds
from torch_geometric_erwin import (
    BallTree,
    EquivariantErwinConv,
    EquivariantErwinTransformer,
    ErwinConv,
    ErwinTransformer,
)

MODULE = 'benchmarks.speed.equivariant'
BALL, HEADS = 128, 4
NAMES = 'equivariant', 'plain'
# At least so fast, as part of the plain ones' speed.
AIMS = {'conv': 0.5, 'model': 0.4, 'tree': 0.5}


class Problem:
    r"""Random points, and what is done to them."""
    def __init__(self, num_points: int, channels: int) -> None:
        torch.manual_seed(0)
        self.pos = torch.rand(num_points, 3)
        self.x = torch.randn(num_points, channels, requires_grad=True)
        self.vec = torch.randn(num_points, 3, channels, requires_grad=True)
        self.channels = channels

    def step(self, what: str, name: str) -> Contender:
        axes = 'principal' if name == 'equivariant' else 'coordinate'

        def tree() -> BallTree:
            return BallTree.build(self.pos, ball_size=BALL, strides=(4, 4),
                                  axes=axes)

        return tree if what == 'tree' else self._train(what, name, tree())

    def _train(self, what: str, name: str, tree: BallTree) -> Contender:
        equivariant = name == 'equivariant'
        rows = [self.x, self.vec] if equivariant else [self.x]
        if what == 'conv':
            kind: Any = EquivariantErwinConv if equivariant else ErwinConv
            module = kind(self.channels, self.channels, HEADS)
            args, more = (*rows, tree), {}
        else:
            module = self._model(equivariant)
            args, more = (self.x, ), {'pos': self.pos}
        variables = [*rows] if what == 'conv' else [self.x]
        variables += module.parameters()

        def step() -> object:
            out = module(*args, **more)
            whole = sum(x.sum() for x in (
                out if isinstance(out, tuple) else (out, )))
            return torch.autograd.grad(whole, variables, allow_unused=True)

        return step

    def _model(self, equivariant: bool) -> torch.nn.Module:
        kind: Any = EquivariantErwinTransformer if equivariant else (
            ErwinTransformer)
        more = {'out_vectors': 1} if equivariant else {}
        return kind(self.channels, self.channels, 1, depths=2, heads=HEADS,
                    ball_sizes=BALL, strides=[4, 4], mp_steps=1, **more)


def check() -> str:
    r"""The one turns along, the other does not."""
    torch.manual_seed(0)
    problem = Problem(500, 16)
    turn = torch.linalg.qr(torch.randn(3, 3).double())[0]
    model = problem._model(True).double().eval()
    x, pos = problem.x.detach().double(), problem.pos.double()
    (a, a_vec), (b, b_vec) = model(x, pos=pos), model(x, pos=pos @ turn.T)
    error = max(float((a - b).abs().max() / a.abs().max()), float(
        (turn @ a_vec - b_vec).abs().max() / a_vec.abs().max()))
    if not error < 1e-9:
        raise RuntimeError('The equivariant model does not turn along.')
    return (f'checks: a turned cloud turns what the equivariant model returns '
            f'(to {error:.0e} of the largest)')


def speed(sizes: tuple[int, ...], channels: int, rounds: Rounds) -> Table:
    table = Table(
        'Time', ['what, points', *NAMES, 'plain / equivariant', 'paired',
                 'aim', 'rounds'],
        f'conv: two blocks of {channels} channels, {HEADS} heads, balls of '
        f'{BALL}; model: three levels, strides (4, 4), one step of message '
        f'passing, with building its tree; both forward and backward. tree: '
        f'that of the model alone.')
    for what, aim in AIMS.items():
        for n in sizes:
            problem = Problem(n, channels)
            compare(table, f'{what}, {n:,}',
                    {name: problem.step(what, name) for name in NAMES},
                    rounds, aim, ['plain'])
    return table


def peak(name: str, num_points: int, channels: int) -> None:
    r"""Prints how far a step raises this process' peak."""
    step = Problem(num_points, channels).step('model', name)
    Problem(1_000, channels).step('model', name)()
    forget_peak()
    before = status('VmRSS')
    step()
    print(status('VmHWM') - before)


def memory(sizes: tuple[int, ...], channels: int, threads: int) -> Table:
    table = Table(
        'Memory of the model, forward and backward',
        ['points', *NAMES, 'equivariant / plain'],
        'How far a step raises the peak of a process of its own.')
    for n in sizes:
        found = [int(apart(MODULE, threads, 'peak', name, n, channels))
                 for name in NAMES]
        table.rows.append([f'{n:,}', *(f'{x / 1e6:,.1f} MB' for x in found),
                           f'{found[0] / found[1]:.2f}'])
    return table


def main(
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000),
    channels: int = 64,
    threads: int = 2,
    repeats: int = 9,
    seconds: float = 8.,
    out: Path | None = None,
) -> None:
    r"""Times both, in turn.

    Args:
        sizes: Numbers of points.
        channels: The number of channels.
        threads: The number of threads.
        repeats: The most rounds of a row.
        seconds: A row stops after this long.
        out: Where to write the tables, as markdown.
    """
    torch.set_num_threads(threads)
    facts = [machine(), versions(['torch', 'torch-geometric-erwin']),
             f'threads: {threading(threads)}', check()]
    console = Console()
    console.print('\n'.join(facts), highlight=False)
    tables = [speed(sizes, channels, Rounds(repeats, seconds)),
              memory(sizes[1:], channels, threads)]
    for table in tables:
        table.print(console)
    if out is not None:
        write(out, 'Equivariant layers', facts, tables, command(MODULE))


if __name__ == '__main__':
    if sys.argv[1:2] == ['peak']:
        peak(sys.argv[2], *map(int, sys.argv[3:5]))
    else:
        auto_cli(main, as_positional=False)
