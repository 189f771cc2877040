r"""A fused block against the same block made of modules, eager and compiled.

Run it as :obj:`python -m benchmarks.speed.block --help`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor

from benchmarks.speed.compare import compare
from benchmarks.speed.process import apart, forget_peak, status
from benchmarks.speed.report import (
    Table,
    command,
    machine,
    threading,
    times,
    versions,
    write,
)
from benchmarks.speed.timing import Contender, Rounds
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.nn.conv import ErwinBlock

MODULE = 'benchmarks.speed.block'
BALL, WIDTH = 256, 16  # points of a ball, channels of a head
NAMES = {'fused': 'fused', 'compiled': 'modules, compiled',
         'eager': 'modules, eager'}


class Modules(torch.nn.Module):
    r"""A block's modules, one after the other; attention within balls by the
    same kernel.
    """
    def __init__(self, block: ErwinBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, tree: BallTree, offset: Tensor) -> Tensor:
        block = self.block
        x = x + block.attn(block.norm1(x), tree, 0, offset=offset)
        return x + block.mlp(block.norm2(x))


class Problem:
    r"""Random points, their tree, and a block."""
    def __init__(self, num_points: int, channels: int) -> None:
        torch.manual_seed(0)
        self.tree = BallTree.build(torch.rand(num_points, 3), ball_size=BALL)
        self.offset = self.tree.offsets(0)
        self.x = torch.randn(num_points, channels, requires_grad=True)
        self.weight = torch.randn(num_points, channels)
        self.block = ErwinBlock(channels, channels // WIDTH)

    def step(self, name: str, backward: bool) -> Contender:
        run: Any = self.block if name == 'fused' else Modules(self.block)
        args = self.x, self.tree
        if name == 'compiled':
            run = torch.compile(run, fullgraph=True, dynamic=False)
        more = {'offset': self.offset}
        variables = [self.x, *self.block.parameters()]

        def step() -> object:
            if backward:
                return torch.autograd.grad(run(*args, **more), variables,
                                           self.weight)
            with torch.no_grad():
                return run(*args, **more)

        return step


def check() -> str:
    r"""The same result and gradients."""
    problem = Problem(1_000, 64)
    expected, *others = ((problem.step(name, False)(),
                          *problem.step(name, True)()) for name in NAMES)
    for found in others:
        for a, b in zip(expected, found, strict=True):
            if not (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-5:
                raise RuntimeError('The results disagree.')
    return 'checks: results and gradients agree to 1e-4 of the largest'


def speed(sizes: tuple[int, ...], channels: tuple[int, ...],
          threads: tuple[int, ...], backward: bool, rounds: Rounds) -> Table:
    first, *peers = NAMES
    table = Table(
        'Forward and backward' if backward else 'Forward',
        ['points, channels, threads', *NAMES.values(),
         *(f'{NAMES[peer]} / {first}' for peer in peers), 'paired', 'aim',
         'rounds'],
        f'Balls of {BALL}, heads of {WIDTH} channels, float32'
        f"{', to features and weights' * backward}. The same kernel computes "
        'attention within balls for all of them.')
    for n in sizes:
        for width in channels:
            for count in threads:
                torch.set_num_threads(count)
                torch.compiler.reset()
                problem = Problem(n, width)
                compare(table, f'{n:,}, {width}, {count}',
                        {name: problem.step(name, backward)
                         for name in NAMES}, rounds, None, peers)
    return table


def peak(name: str, num_points: int, channels: int) -> None:
    r"""Prints how far a step raises this process' peak, once compiled."""
    run = Problem(num_points, channels).step(name, True)
    run()
    forget_peak()
    before = status('VmRSS')
    run()
    print(status('VmHWM') - before)


def memory(sizes: tuple[int, ...], channels: tuple[int, ...],
           threads: int) -> Table:
    first, *peers = NAMES
    table = Table(
        'Memory, forward and backward',
        ['points, channels', *NAMES.values(),
         *(f'{NAMES[peer]} / {first}' for peer in peers)],
        'How far a step raises the peak of a process of its own.')
    for n in sizes:
        for width in channels:
            found = [int(apart(MODULE, threads, 'peak', name, n, width))
                     for name in NAMES]
            table.rows.append([
                f'{n:,}, {width}', *(f'{x / 1e6:,.1f} MB' for x in found),
                *(times(x / found[0]) for x in found[1:])])
    return table


def main(
    sizes: tuple[int, ...] = (4_096, 16_384),
    channels: tuple[int, ...] = (64, 128, 256),
    threads: tuple[int, ...] = (1, 2),
    repeats: int = 9,
    seconds: float = 8.,
    out: Path | None = None,
) -> None:
    r"""Times a block, the contenders in turn.

    Args:
        sizes: Numbers of points.
        channels: Numbers of channels.
        threads: Numbers of threads.
        repeats: The most rounds of a row.
        seconds: A row stops after this long.
        out: Where to write the tables, as markdown.
    """
    facts = [machine(), versions(['torch', 'torch-geometric-erwin']),
             f'threads: {threading(max(threads))}', check()]
    console = Console()
    console.print('\n'.join(facts), highlight=False)
    tables = []
    for backward in (False, True):
        tables.append(speed(sizes, channels, threads, backward,
                            Rounds(repeats, seconds)))
        tables[-1].print(console)
    tables.append(memory(sizes, channels, max(threads)))
    tables[-1].print(console)
    if out is not None:
        write(out, 'A block', facts, tables, command(MODULE))


if __name__ == '__main__':
    if sys.argv[1:2] == ['peak']:
        peak(sys.argv[2], *map(int, sys.argv[3:5]))
    else:
        auto_cli(main, as_positional=False)
