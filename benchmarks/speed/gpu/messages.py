r"""Message passing: results, time and memory."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.gpu.context import Context, show_bytes, show_time
from benchmarks.speed.message_layers import (
    LAYERS,
    VECTOR_LAYERS,
    Problem,
)
from benchmarks.speed.report import Table
from torch_geometric_erwin.ops.equivariant_messages import (
    equivariant_messages,
)
from torch_geometric_erwin.ops.equivariant_messages import (
    reference as with_vectors,
)
from torch_geometric_erwin.ops.message_passing import (
    message_passing,
    reference,
)

# Relative to the largest number.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
EPS = 0.01  # of the layer norm
# Channels, numbers of an edge, and dimensions of vectors, if there are any.
CASES = [(64, 3, 0), (1, 1, 0), (64, 1, 3), (20, 9, 0), (100, 3, 0),
         (128, 8, 0), (256, 3, 0), (500, 20, 0), (1, 1, 2), (20, 9, 2),
         (100, 3, 4), (128, 8, 3), (512, 1, 5)]


def make_problem(channels: int, dims: int, axes: int,
                 dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    sources, targets, edges = 300, 200, 4_000
    shapes = [(sources, channels), (targets, channels), (edges, dims),
              (channels, dims), (channels, ), (channels, )]
    if axes:
        shapes.insert(2, (sources, axes, channels))
        shapes.insert(4, (edges, axes))
    edge_index = torch.stack([torch.randint(sources, (edges, )),
                              torch.randint(targets // 2, (edges, ))])
    return [torch.randn(shape).to(dtype) for shape in shapes], edge_index


def errors(channels: int, dims: int, axes: int, dtype: torch.dtype, aggr: str,
           device: torch.device) -> float:
    r"""How far results are off, in units of what is tolerated."""
    variables, edge_index = make_problem(channels, dims, axes, dtype)

    def run(fn: Any, to: Any, *rest: Any, **more: Any) -> list[Tensor]:
        some = [v.to(**to).requires_grad_() for v in variables]
        out = fn(*some, *rest, **more)
        out = out if axes else (out, )
        torch.manual_seed(1)
        grads = [torch.randn(x.shape).to(dtype).to(**to) for x in out]
        return [x.cpu().double() for x in (
            *out, *torch.autograd.grad(out, some, grads))]

    kernel, formula = (
        (equivariant_messages, with_vectors.equivariant_messages) if axes
        else (message_passing, reference.message_passing))
    found = run(kernel, {'device': device}, edge_index.to(device), aggr=aggr,
                eps=EPS)
    exact = run(formula, {'dtype': torch.double}, edge_index, aggr, EPS)
    # Of one channel nothing is left but shifts: gradients are rounding errors
    # of what cancels, times the norm's factor.
    tolerance = TOLERANCES[dtype] * (EPS**-0.5 if channels == 1 else 1.)
    return max(((a - b).abs().max() / (1 + b.abs().max())).item()
               if a.isfinite().all() else torch.inf
               for a, b in zip(found, exact, strict=True)) / tolerance


def check(context: Context) -> Table:
    table = Table(
        'Messages against their formula in float64',
        ['channels', 'numbers of an edge', 'vectors', 'type', 'sum', 'error'],
        'Results and all gradients, random edges, half of all targets without '
        'any; equivariant messages where there are vectors, of so many '
        'dimensions. Errors are in units of what is tolerated: relative to '
        'one plus the largest number 1e-5, 3e-2 for bfloat16, 4e-3 for '
        'float16; for one channel, of which the norm leaves nothing, ten '
        'times as much.')
    for channels, dims, axes in CASES[:3] if context.tiny else CASES:
        for dtype in TOLERANCES:
            for aggr in ('mean', 'sum'):
                if not context.has_time():
                    continue
                name = (f'messages, {channels} channels, {dims} numbers, '
                        f'{axes} dimensions, {dtype}, {aggr}')
                with context.guard(name):
                    error = errors(channels, dims, axes, dtype, aggr,
                                   context.device)
                    table.rows.append([
                        str(channels), str(dims), str(axes or ''),
                        str(dtype).removeprefix('torch.'), aggr,
                        f'{error:.2f}'])
                    if not error <= 1:
                        context.fail(name, f'off by {error:.2g} times what '
                                     'is tolerated')
    return table


def run(context: Context) -> Iterator[Table]:
    yield check(context)
    names = [name for name in (*LAYERS, *VECTOR_LAYERS)
             if name != 'PointTransformerConv']
    tables = [Table(f'Message passing: {what}',
                    ['nodes', 'channels', *names], note)
              for what, note in (
                  ('forward and backward', '16 neighbors, float32; as '
                   '`benchmarks.speed.message_passing`.'),
                  ('memory', 'Peak of a step.'))]
    sizes = (100, 200) if context.tiny else (100_000, 10_000, 1_000_000)
    for nodes in sizes:
        if not context.has_time():
            break
        with context.guard(f'message passing, {nodes:,} nodes'):
            problem = Problem(nodes, 16, 64, context.device)
            steps = {name: problem.step(name) for name in names}
            found = context.time(steps)
            tables[0].rows.append([f'{nodes:,}', '64', *(
                show_time(found.get(name)) for name in names)])
            peaks = {name: context.peak(step) for name, step in steps.items()
                     if step is not None and name in found}
            tables[1].rows.append([f'{nodes:,}', '64', *(
                show_bytes(peaks.get(name)) for name in names)])
        yield from tables
