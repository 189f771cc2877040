r"""Attention in balls with a distance bias against PyTorch's, with and
without one.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor

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
from benchmarks.speed.timing import (
    Contender,
    Rounds,
    fit_exponent,
    interleave,
)
from torch_geometric_erwin.ops.ball_attention import Balls, ball_attention

HEADS = 4
NAMES = 'ours', 'no bias', 'bias'


class Problem:
    r"""Random points in balls: by rows for ours, and already in the order of
    the balls, contiguous, for PyTorch's. Its :obj:`cdist` is fast by default,
    which is wrong by up to a thousandth for near points.
    """
    def __init__(self, num_balls: int, ball_size: int, width: int,
                 cdist: str = 'use_mm_for_euclid_dist_if_necessary') -> None:
        torch.manual_seed(0)
        self.cdist = cdist
        n = num_balls * ball_size
        index = torch.randperm(n)
        self.balls = Balls(ball_size, index, index.argsort())
        qkv = torch.randn(n, 3, HEADS, width)
        self.rows = [x.requires_grad_() for x in qkv.unbind(1)]
        self.pos = torch.rand(n, 3)
        self.slope = (-torch.rand(HEADS)).requires_grad_()
        self.heads = [self.split(x) for x in self.rows]
        self.weight = torch.randn(n, HEADS, width)

    def split(self, x: Tensor) -> Tensor:
        x = self.balls.split(x.detach()).transpose(1, 2).contiguous()
        return x.requires_grad_()

    def ours(self) -> Tensor:
        return ball_attention(*self.rows, self.pos, self.slope, self.balls)

    def no_bias(self) -> Tensor:
        return F.scaled_dot_product_attention(*self.heads)

    def bias(self) -> Tensor:
        pos = self.balls.split(self.pos)
        far = torch.cdist(pos, pos, compute_mode=self.cdist).unsqueeze(1)
        return F.scaled_dot_product_attention(
            *self.heads, attn_mask=self.slope.view(-1, 1, 1) * far)

    def contenders(self, backward: bool) -> dict[str, Contender]:
        heads = self.split(self.weight).detach()
        return {name: self._step(run, weight, backward) for name, run, weight
                in zip(NAMES, (self.ours, self.no_bias, self.bias),
                       (self.weight, heads, heads), strict=True)}

    def _step(self, run: Callable[[], Tensor], weight: Tensor,
              backward: bool) -> Contender:
        variables = self.rows if run == self.ours else self.heads
        if run != self.no_bias:
            variables = [*variables, self.slope]

        def step() -> object:
            if backward:
                return torch.autograd.grad(run(), variables, weight)
            with torch.no_grad():
                return run()

        return step


def check() -> None:
    r"""The same result and gradients as PyTorch's attention."""
    problem = Problem(4, 64, 16, 'donot_use_mm_for_euclid_dist')
    a = problem.contenders(True)
    results = [[problem.split(problem.ours()), *a['ours']()],
               [problem.bias(), *a['bias']()]]
    for i in range(1, 4):
        results[0][i] = problem.split(results[0][i])
    for x, y in zip(*results, strict=True):
        if not torch.allclose(x, y, atol=1e-4, rtol=1e-4):
            raise RuntimeError('The results disagree.')


def peak(name: str, num_points: int, ball_size: int) -> None:
    r"""Prints how far a step raises this process' peak."""
    Problem(2, 16, 16).contenders(True)[name]()
    run = Problem(num_points // ball_size, ball_size, 16).contenders(True)[
        name]
    forget_peak()
    before = status('VmRSS')
    run()
    print(status('VmHWM') - before)


def peak_in_process(name: str, num_points: int, ball_size: int,
                    threads: int) -> int:
    return int(apart('benchmarks.speed.attention', threads, 'peak', name,
                     num_points, ball_size))


def speed(ball_sizes: tuple[int, ...], widths: tuple[int, ...],
          num_balls: int, rounds: Rounds) -> list[Table]:
    tables = []
    for backward in (False, True):
        most = 1.5 if backward else 1.3
        table = Table(
            'Forward and backward' if backward else 'Forward',
            ['balls of', 'head width', 'ours', 'SDPA, no bias', 'SDPA, bias',
             'ours / no bias', 'bias / ours'],
            f'{num_balls} balls, {HEADS} heads, float32; gradients of '
            'queries, keys, values and slopes. Ours gathers the points into '
            "balls and computes distances, too; PyTorch's gets queries, keys "
            f'and values in balls. Aims: ours at most {most} times no bias, '
            'and bias at least 3 times ours at 256.')
        for size in ball_sizes:
            for width in widths:
                problem = Problem(num_balls, size, width)
                found = interleave(problem.contenders(backward), rounds)
                a, b, c = (median(found[name]) for name in NAMES)
                missed = ' (missed)' if a > most * b else ''
                aim = 3. if backward and size == 256 else None
                table.rows.append([
                    str(size), str(width), milliseconds(a), milliseconds(b),
                    milliseconds(c), f'{a / b:.2f}{missed}',
                    times(c / a, aim)])
        tables.append(table)
    return tables


def memory(sizes: tuple[int, ...], threads: int) -> Table:
    table = Table(
        'Extra memory, forward and backward',
        ['points', 'ours, balls of 64', 'of 256', 'of 1,024',
         'SDPA, no bias, 256', 'SDPA, bias, 256'],
        f'{HEADS} heads of 16, float32: how far the peak of a process rises, '
        'results included.')
    cases = [('ours', 64), ('ours', 256), ('ours', 1024), ('no bias', 256),
             ('bias', 256)]
    rows = []
    for n in sizes:
        rows.append([peak_in_process(name, n, size, threads)
                     for name, size in cases])
        table.rows.append([f'{n:,}', *(f'{x / 1e6:,.1f} MB'
                                       for x in rows[-1])])
    table.rows.append(['β of bytes ∝ n^β', *(
        f'{fit_exponent(sizes, column):.2f}'
        for column in zip(*rows, strict=True))])
    return table


def main(
    ball_sizes: tuple[int, ...] = (64, 128, 256),
    widths: tuple[int, ...] = (16, 32, 64),
    num_balls: int = 64,
    memory_sizes: tuple[int, ...] = (16_384, 65_536, 262_144),
    repeats: int = 9,
    seconds: float = 10.,
    threads: int = 2,
    out: Path | None = None,
) -> None:
    r"""Times attention in balls, the contenders in turn.

    Args:
        ball_sizes: Points of a ball.
        widths: Widths of a head.
        num_balls: Number of balls.
        memory_sizes: Numbers of points for the table of memory.
        repeats: The most rounds of a row.
        seconds: A row stops after this long.
        threads: Number of threads.
        out: Where to write the tables, as markdown.
    """
    torch.set_num_threads(threads)
    facts = [machine(), versions(['torch', 'torch-geometric-erwin']),
             f'threads: {threading(threads)}']
    check()
    tables = speed(ball_sizes, widths, num_balls, Rounds(repeats, seconds))
    if memory_sizes:
        tables.append(memory(memory_sizes, threads))
    console = Console()
    console.print('\n'.join(facts))
    for table in tables:
        table.print(console)
    if out is not None:
        write(out, 'Attention in balls', facts, tables,
              command('benchmarks.speed.attention'))


if __name__ == '__main__':
    if sys.argv[1:2] == ['peak']:
        peak(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        auto_cli(main, as_positional=False)
