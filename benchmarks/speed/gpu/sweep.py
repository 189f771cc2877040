r"""The tiles of attention's Triton kernels: which are the fastest."""

import inspect
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch

from benchmarks.speed.gpu.attention import Problem
from benchmarks.speed.gpu.context import Context, show_time
from benchmarks.speed.report import Table
from torch_geometric_erwin.ops import ball_attention as package

CASES = [(256, 16), (256, 32), (256, 64), (128, 32), (64, 32), (512, 32)]
BEST = 3  # tiles shown of each case


def candidates(ball_size: int) -> Iterator[tuple[int, int, int, int]]:
    r"""Rows, columns, warps and stages."""
    for rows, columns, warps, stages in product(
            (32, 64, 128), (32, 64, 128), (2, 4, 8), (1, 2, 3)):
        if columns <= max(ball_size, rows) and rows >= 16 * warps:
            yield rows, columns, warps, stages


def run(context: Context) -> Iterator[Table]:
    kernels: Any = getattr(package, 'triton', None)
    n = 512 if context.tiny else 2**18
    table = Table('Tiles', ['balls of', 'width', 'type', 'kernel', 'tiles',
                            'time', 'times the default'],
                  f'Rows, columns, warps and stages, {n:,} points, the '
                  f'fastest {BEST}.')
    if not (context.is_cuda and hasattr(kernels, 'Tiles')
            and 'tiles' in inspect.signature(kernels.forward).parameters):
        table.note = 'There are no tiles to choose here.'
        yield table
        return
    for dtype in (torch.bfloat16, torch.float32):
        for size, width in CASES:
            if context.has_time():
                problem = Problem(context, n, size, width, dtype)
                for kernel in ('forward', 'backward'):
                    table.rows += sweep(context, kernels, problem, kernel)
                    yield table


def sweep(context: Context, kernels: Any, problem: Problem,
          kernel: str) -> list[list[str]]:
    balls, rows = problem.balls['in order'], problem.rows
    size, width, dtype = balls.size, rows[0].size(2), rows[0].dtype
    rest = problem.pos, problem.slope.detach(), balls.index, None, None
    rows = [x.detach() for x in rows]
    with torch.no_grad():
        out, lse = kernels.forward(rows, *rest, size, 'distance')
    args: tuple[Any, ...] = (rows, *rest, size, 'distance')
    if kernel == 'backward':
        args = ([*rows, out, problem.weight], *rest, lse, size, 'distance',
                [True, True, True, False, True])
    call = getattr(kernels, kernel)
    usual = context.turn(partial(call, *args))
    found = {}
    for tiles in candidates(size):
        if not context.has_time():
            break
        step = partial(call, *args, tiles=kernels.Tiles(*tiles))
        try:
            found[tiles] = context.turn(step)
        except Exception as error:  # too large for the GPU, say
            print(f'{kernel}, {tiles}: {type(error).__name__}', flush=True)
    label = [f'{size}', f'{width}', str(dtype).removeprefix('torch.'), kernel]
    best = sorted(found.items(), key=lambda x: x[1])[:BEST]
    return [[*label, 'default', show_time(usual), '1.00'],
            *([*label, str(tiles), show_time(time), f'{time / usual:.2f}']
              for tiles, time in best)]
