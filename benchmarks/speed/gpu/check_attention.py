r"""Attention against its formula in float64."""

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.speed.gpu.context import Context
from benchmarks.speed.report import Table
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.ops import ball_attention as package
from torch_geometric_erwin.ops.ball_attention import (
    Balls,
    ball_attention,
    reference,
)

# Relative to the largest number; ten times as much for slopes.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3,
              torch.float64: 1e-12}
TYPES = torch.float32, torch.bfloat16, torch.float16
# Who computes attention, in this order, where none before does.
PATHS = 'cpu', 'triton', 'flash'
NAMES = 'output', 'query', 'key', 'value', 'position', 'slope'


class Case(NamedTuple):
    ball_size: int = 256
    width: int = 16
    dim: int = 3
    bias: str | None = 'distance'
    mask: bool = False
    box: bool = False
    heads: int = 4
    dtype: torch.dtype = torch.float32


AXES: dict[str, tuple[Any, ...]] = {
    'ball_size': (1, 8, 16, 32, 64, 128, 256, 512),
    'width': (8, 16, 24, 32, 64, 128), 'dim': (1, 2, 3, 4, 5),
    'bias': ('distance', 'squared', None), 'mask': (True, False),
    'box': (True, False), 'heads': (1, 2, 3, 4), 'dtype': TYPES}


def sample(count: int) -> list[Case]:
    r"""Cases such that each value of each axis comes equally often."""
    rng = random.Random(0)
    columns = []
    for values in AXES.values():
        column = [values[i % len(values)] for i in range(count)]
        rng.shuffle(column)
        columns.append(column)
    return [Case(*row) for row in zip(*columns, strict=True)]


def plan(tiny: bool) -> list[tuple[Case, tuple[str, ...]]]:
    r"""The cases, and which paths are closed. The usual ones come first,
    and then those of each path but the first.
    """
    cases = [*(Case(dtype=dtype) for dtype in TOLERANCES), Case(width=256)]
    found: list[tuple[Case, tuple[str, ...]]] = [(x, ()) for x in cases]
    some = [Case(64, dtype=dtype, bias=bias, mask=mask)
            for dtype in TYPES[:1 if tiny else 2]
            for bias, mask in (('distance', False), (None, True),
                               ('squared', False))]
    many = [(x, ()) for x in sample(12 if tiny else 72)]
    found += many[:24]
    for i in range(2, len(PATHS) + 1):
        if i == 2 or hasattr(package, PATHS[i - 1]):
            found += [(x, PATHS[:i]) for x in some]
    return found + many[24:]


@contextmanager
def closed(paths: Sequence[str]) -> Iterator[None]:
    r"""Keeps modules from serving."""
    with ExitStack() as stack:
        for name in paths:
            if hasattr(package, name):
                stack.enter_context(patch.object(
                    getattr(package, name), 'serves', lambda *_: False))
        yield


def make_problem(case: Case, device: torch.device,
                 ) -> tuple[list[Tensor], Tensor, Tensor | None, Balls]:
    r"""Three clouds of a few balls; with a mask some slots are virtual."""
    torch.manual_seed(0)
    size = case.ball_size
    sizes = [2 * size, 3 * size, max(64 // size, 1) * size]
    if case.mask:
        sizes = [max(x - 1 - x // 7, 1) for x in sizes]
    batch = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    n = len(batch)
    pos = 2 * torch.rand(n, case.dim)
    tree = BallTree.build(pos, batch, ball_size=size,
                          box=2. if case.box else None).to(device)
    part = tree.partition(1)
    balls = Balls(size, part.index, part.inverse, part.mask,
                  tree.box_of_ball(1))
    rows = [torch.randn(n, case.heads, case.width).to(device, case.dtype)
            for _ in range(3)]
    slope = None if case.bias is None else -torch.rand(case.heads).to(device)
    pos = tree.pos
    if case.dtype == torch.float64:
        pos, slope = (None if x is None else x.double() for x in (pos, slope))
    return rows, pos, slope, balls


def differentiate(case: Case, rows: list[Tensor], pos: Tensor,
                  slope: Tensor | None, balls: Balls, exact: bool,
                  ) -> list[Tensor]:
    r"""Returns the output and the gradients of all variables."""
    if exact:
        rows, pos = [x.double() for x in rows], pos.double()
        slope = None if slope is None else slope.double()
        box = None if balls.box is None else balls.box.double()
        balls = Balls(balls.size, balls.index, balls.inverse, balls.mask, box)
    rows = [x.detach().requires_grad_() for x in rows]
    variables = list(rows)
    if slope is not None:
        pos, slope = (x.detach().requires_grad_() for x in (pos, slope))
        variables += [pos, slope]
    run: Any = reference.ball_attention if exact else ball_attention
    args = (case.bias, ) if exact else ()
    more = {} if exact else {'bias': case.bias}
    out = run(*rows, pos, slope, balls, *args, **more)
    torch.manual_seed(1)
    weight = torch.randn(out.shape).to(out.device, case.dtype)
    return [out, *torch.autograd.grad(out, variables, weight.to(out.dtype))]


def errors(case: Case, device: torch.device) -> Iterator[tuple[float, str]]:
    r"""Yields how far results are off, in units of what is tolerated."""
    problem = make_problem(case, device)
    found = differentiate(case, *problem, exact=False)
    expected = differentiate(case, *problem, exact=True)
    for name, a, b in zip(NAMES, found, expected, strict=False):
        most = b.abs().max()
        if case.ball_size == 1:  # gradients that cancel
            most = most.clamp(min=1.)
        tolerance = TOLERANCES[case.dtype] * (10 if name == 'slope' else 1)
        error = (a.double() - b).abs().max() / most / tolerance
        yield (error.item() if a.isfinite().all() else torch.inf), name


@contextmanager
def watch() -> Iterator[list[str]]:
    r"""Notes the modules of attention that compute a forward pass."""
    folder, seen = Path(package.__file__).parent, []

    def note(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == 'call' and code.co_name in ('forward', 'ball_attention'):
            path = Path(code.co_filename)
            if path.parent == folder and path.stem != '__init__':
                seen.append(path.stem)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def served_by(case: Case, device: torch.device) -> str:
    r"""The module that computes such a case."""
    rows, pos, slope, balls = make_problem(case, device)
    with watch() as seen, torch.no_grad():
        ball_attention(*rows, pos, slope, balls, bias=case.bias)
    return seen[-1]


def run(context: Context) -> Table:
    table = Table(
        'Attention against its formula in float64',
        ['served by', 'type', 'cases', 'worst error', 'of', 'in'],
        'Ball sizes 1 to 512, widths 8 to 256, 1 to 5 dimensions, all biases, '
        'with and without virtual slots and a periodic cell; output and all '
        'gradients. Errors are in units of what is tolerated: relative to '
        'the largest number 1e-5, 2e-2 for bfloat16, 3e-3 for float16 and '
        '1e-12 for float64; ten times as much for slopes.')
    found: dict[tuple[str, torch.dtype], list[tuple[float, str, Case]]] = {}
    todo = plan(context.tiny)
    for done, (case, without) in enumerate(todo):
        if not context.has_time():
            table.note += f' No time for {len(todo) - done} cases.'
            break
        with context.guard(f'attention, {case}'), closed(without):
            path = served_by(case, context.device)
            error, name = max(errors(case, context.device))
            found.setdefault((path, case.dtype), []).append(
                (error, name, case))
            if not error <= 1:
                context.fail(f'attention by {path}, {case}', f'{name} is off '
                             f'by {error:.2g} times what is tolerated')
    for (path, dtype), results in found.items():
        error, name, case = max(results, key=lambda x: x[0])
        table.rows.append([path, str(dtype).removeprefix('torch.'),
                           str(len(results)), f'{error:.2f}', name,
                           describe(case)])
    return table


def describe(case: Case) -> str:
    return (f'balls of {case.ball_size}, width {case.width}, {case.dim}-D, '
            f'bias {case.bias}' + ', virtual slots' * case.mask
            + ', periodic' * case.box)
