r"""The whole model in the authors' configuration."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.erwin_models import (
    CONFIG,
    TINY,
    cloud,
    describe,
    gradients,
    make_ours,
    make_pair,
    their_tree,
)
from benchmarks.speed.gpu.context import (
    Context,
    profile_table,
    show_bytes,
    show_time,
)
from benchmarks.speed.report import Table
from benchmarks.speed.timing import Contender

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
TO_COMPILE = 90.  # seconds that have to be left


class Problem:
    r"""Ours and, where there is a clone, the authors', on the same cloud and
    tree.
    """
    def __init__(self, context: Context, num_points: int) -> None:
        self.context = context
        config = TINY if context.tiny else CONFIG
        there = context.device
        self.models: dict[str, torch.nn.Module] = {}
        if context.official is None:
            ours = make_ours(config)
        else:
            ours, theirs = make_pair(context.official, config, noise=0.02)
            self.models["authors'"] = theirs.to(there)
        self.models['ours'] = ours.to(there)
        self.x, self.pos = (x.to(there) for x in cloud(num_points, config))
        self.batch = torch.zeros(num_points, dtype=torch.long, device=there)
        self.tree = ours.build_tree(self.pos)
        if "authors'" in self.models:
            self.theirs = their_tree(self.tree)

    def forward(self, name: str, dtype: torch.dtype, model: Any) -> Tensor:
        with torch.autocast(self.context.device.type, torch.bfloat16,
                            enabled=dtype == torch.bfloat16):
            if name == 'ours':
                return model(self.x, self.tree)
            rotated = list(self.theirs['tree_idx_rot'])
            return model(self.x, self.pos, self.batch,
                         **{**self.theirs, 'tree_idx_rot': rotated})

    def step(self, name: str, dtype: torch.dtype,
             compiled: bool = False) -> Contender:
        model: Any = self.models[name]
        run: Callable[..., Any] = model
        if compiled:
            torch.compiler.reset()
            run = torch.compile(model, dynamic=False)
        return gradients(model, lambda: self.forward(name, dtype, run))

    @torch.no_grad()
    def check(self) -> None:
        r"""The same outputs, in float32."""
        if "authors'" not in self.models:
            return
        a, b = (self.forward(name, torch.float32, model.eval())
                for name, model in self.models.items())
        for model in self.models.values():
            model.train()
        error = ((a - b).abs().max() / a.abs().max()).item()
        if not error < 1e-3:
            raise RuntimeError(f'The models differ by {error:.1e}')


def run(context: Context) -> Iterator[Table]:
    config = TINY if context.tiny else CONFIG
    sizes = [64, 256] if context.tiny else [65_536, 16_384, 262_144]
    names = ['ours', *["authors'"] * (context.official is not None)]
    table = Table(
        'The whole model: forward and backward',
        ['points', 'type', *(f'{name}, {how}' for name in names
                             for how in ('eager', 'compiled', 'peak'))],
        f'{describe(config)}. Gradients of all weights, one cloud, the tree '
        'built before; bfloat16 by autocast. peak: memory of a step, eager.')
    cells: dict[tuple[int, str], list[str]] = {}
    profile = None

    def fill() -> Table:
        table.rows = [[f'{n:,}', dtype, *row]
                      for (n, dtype), row in sorted(cells.items())]
        return table

    for n in sizes:
        for dtype in DTYPES:
            if context.has_time():
                with context.guard(f'model, {n:,} points, {dtype}'):
                    cells[n, dtype] = eager(context, n, dtype, names)
                yield fill()
    with context.guard('profile of the model'):
        profile, _ = profile_table(
            context, f'Kernels of ours, {sizes[0]:,} points, bfloat16',
            Problem(context, sizes[0]).step('ours', torch.bfloat16), 12)
    if profile is not None:
        yield profile
    todo = [(n, dtype, i) for n in sizes for dtype in reversed(DTYPES)
            for i in range(len(names)) if (n, dtype) in cells]
    for n, dtype, i in todo if context.compiles else []:
        if context.has_time(TO_COMPILE):
            what = f'{names[i]} compiled, {n:,} points, {dtype}'
            print(what, file=sys.stderr, flush=True)
            with context.guard(what):
                step = Problem(context, n).step(names[i], DTYPES[dtype], True)
                found = context.time({what: step})
                cells[n, dtype][3 * i + 1] = show_time(found.get(what))
            yield fill()


def eager(context: Context, num_points: int, dtype: str,
          names: list[str]) -> list[str]:
    problem = Problem(context, num_points)
    problem.check()
    steps = {name: problem.step(name, DTYPES[dtype]) for name in names}
    found = context.time(steps)
    row = []
    for name in names:
        peak = context.peak(steps[name]) if name in found else None
        row += [show_time(found.get(name)), '', show_bytes(peak)]
    return row
