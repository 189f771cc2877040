r"""What runs on the GPU against what it has to equal."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.erwin_models import (
    CONFIG,
    TINY,
    add_noise,
    make_ours,
)
from benchmarks.speed.gpu import check_attention
from benchmarks.speed.gpu.context import Context
from benchmarks.speed.report import Table
from torch_geometric_erwin import (
    BallTree,
    ErwinTransformer,
    knn_graph,
    radius_graph,
)
from torch_geometric_erwin.ops.build_tree import build_tree
from torch_geometric_erwin.tree.knn_op import tree_knn_graph

OPS = torch.ops.torch_geometric_erwin
CLOUDS: dict[str, dict[str, Any]] = {
    'one cloud': {'sizes': [3_000]},
    'a full cloud': {'sizes': [4_096]},
    'clouds': {'sizes': [1_000, 0, 1, 517, 2_048]},
    'duplicates': {'sizes': [700, 300], 'repeat': 5},
    'a line': {'sizes': [900, 100], 'dim': 1},
    'a plane': {'sizes': [900, 100], 'dim': 2},
    '5-D': {'sizes': [900, 100], 'dim': 5},
    'periodic': {'sizes': [1_500, 600], 'box': 2.},
    'periodic plane': {'sizes': [1_500, 600], 'dim': 2, 'box': 1.5},
    'perfect': {'sizes': [1_500, 600], 'completion': 'perfect'},
    'float64': {'sizes': [1_500, 600], 'dtype': torch.float64},
}
LEVELS = [([256, 256, 256, 256], [2, 2, 2]), ([64, 16], [8]), ([16], []),
          ([1], [])]


def make_cloud(sizes: list[int], dim: int = 3, repeat: int = 1,
               box: float | None = None, dtype: torch.dtype = torch.float32,
               **_: Any) -> tuple[Tensor, Tensor]:
    r"""Positions and batch; each position comes a few times."""
    torch.manual_seed(0)
    n = sum(sizes)
    pos = torch.rand(-(-n // repeat), dim, dtype=dtype).repeat(repeat, 1)[:n]
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return pos * (box or 1.), batch


def check_trees(context: Context, cloud: dict[str, Any]) -> str:
    r"""Slot by slot what torch builds on the CPU."""
    pos, batch = make_cloud(**cloud)
    box = cloud.get('box')
    how = cloud.get('completion', 'balanced')
    ptr = torch.tensor([0, *cloud['sizes']]).cumsum(0)
    cell = None if box is None else torch.full(
        (len(cloud['sizes']), pos.size(1)), box)
    for ball_sizes, strides in LEVELS:
        tree = BallTree.build(
            pos.to(context.device), batch.to(context.device),
            ball_size=ball_sizes, strides=strides, box=box, completion=how)
        levels = build_tree(pos, ptr, ball_sizes, strides, [0., 45.],
                            box=cell, completion=how, backend='torch')
        for i, (a, b) in enumerate(zip(tree.levels, levels, strict=True)):
            where = f'level {i} of balls of {ball_sizes}'
            for name in ('ptr', 'mask', 'group', 'index', 'inverse'):
                require_equal(getattr(a, name), getattr(b, name),
                              f'{name} of {where}')
    return 'equal'


def require_equal(a: Any, b: Any, what: str) -> None:
    if isinstance(a, tuple):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            require_equal(x, y, f'{what}, orientation {i}')
    elif (a is None) != (b is None):
        raise RuntimeError(f'{what}: one is None')
    elif a is not None and not torch.equal(a.cpu(), b.cpu()):
        odd = '' if a.shape != b.shape else (
            f' in {int((a.cpu() != b.cpu()).sum())} of {a.numel()} places')
        raise RuntimeError(f'{what} differs{odd}')


def check_neighbors(context: Context, cloud: dict[str, Any]) -> str:
    r"""The edges that the CPU finds; others only where rounding decides."""
    pos, batch = make_cloud(**cloud)
    box, odd = cloud.get('box'), 0
    radius = (16 / max(cloud['sizes']))**(1 / pos.size(1)) * (box or 1.) / 2
    searches: list[Callable[..., Tensor]] = [
        lambda p, b: knn_graph(p, 16, b, box=box),
        lambda p, b: radius_graph(p, radius, b, box=box)]
    for search in searches:
        a = search(pos.to(context.device), batch.to(context.device)).cpu()
        b = search(pos, batch)
        if torch.equal(a, b):
            continue
        odd += require_close_edges(pos, a, b, box)
    return 'equal' if odd == 0 else f'{odd} edges differ by rounding'


def require_close_edges(pos: Tensor, a: Tensor, b: Tensor,
                        box: float | None) -> int:
    codes = torch.cat([x[0] * len(pos) + x[1] for x in (a, b)])
    found, count = codes.unique(return_counts=True)
    odd = found[count == 1]
    if a.size(1) == b.size(1):
        d, e = (length(pos, x, box) for x in (a, b))
        if not torch.allclose(d, e, rtol=1e-5):
            raise RuntimeError('edges differ')
    elif len(odd) > 1e-4 * b.size(1) + 2:
        raise RuntimeError(f'{len(odd)} edges differ')
    return max(len(odd), 1)


def length(pos: Tensor, edges: Tensor, box: float | None) -> Tensor:
    offset = (pos[edges[0]] - pos[edges[1]]).double()
    if box is not None:
        offset = offset - box * (offset / box).round()
    return offset.norm(dim=1)


def model_results(model: ErwinTransformer, x: Tensor, tree: BallTree,
                  run: Any = None) -> list[Tensor]:
    r"""Returns the output and the gradient of all weights, as one."""
    out = (model if run is None else run)(x, tree)
    torch.manual_seed(1)
    weight = torch.randn(out.shape).to(out.device)
    grads = torch.autograd.grad(out, list(model.parameters()), weight)
    return [out.detach(), torch.cat([g.flatten() for g in grads])]


def make_model(context: Context, large: bool,
               ) -> tuple[ErwinTransformer, Tensor, BallTree]:
    torch.manual_seed(0)
    config = CONFIG if large else {**TINY, 'mp_steps': 1}
    model = make_ours(config).eval()
    add_noise(model, 0.05)
    pos, batch = make_cloud([4_096, 777] if large else [300, 77])
    tree = model.build_tree(pos, batch).with_masks()
    return model, torch.randn(len(pos), config['c_in']), tree


def require_close(a: list[Tensor], b: list[Tensor], most: float) -> str:
    error = max(((x.cpu() - y.cpu()).abs().max() / y.abs().max().cpu()).item()
                for x, y in zip(a, b, strict=True))
    if not error <= most:
        raise RuntimeError(f'outputs or gradients are off by {error:.1e}')
    return f'off by {error:.0e}'


def check_model(context: Context) -> str:
    r"""The model on the CPU."""
    model, x, tree = make_model(context, not context.tiny)
    expected = model_results(model, x, tree)
    there = context.device
    found = model_results(model.to(there), x.to(there), tree.to(there))
    return require_close(found, expected, 1e-3)


def check_autocast(context: Context) -> str:
    r"""The model in float32."""
    model, x, tree = make_model(context, not context.tiny)
    there = context.device
    args = model.to(there), x.to(there), tree.to(there)
    expected = model_results(*args)
    with torch.autocast(there.type, torch.bfloat16):
        out = model(*args[1:])
    return require_close([out.float()], expected[:1], 0.1)


def check_compiled(context: Context) -> str:
    r"""The model without compiling."""
    model, x, tree = make_model(context, False)
    there = context.device
    args = model.to(there), x.to(there), tree.to(there)
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    return require_close(model_results(*args, compiled),
                         model_results(*args), 1e-3)


def check_attention_ops(context: Context) -> str:
    r"""Rules for operators."""
    path = check_attention.served_by(check_attention.Case(), context.device)
    if path not in ('cpu', 'triton'):
        return f'not in use: {path} serves'
    for mask in (False, True):
        case = check_attention.Case(16, mask=mask, box=mask)
        rows, pos, slope, balls = check_attention.make_problem(
            case, context.device)
        rest = balls.mask, balls.box
        args: tuple[Any, ...] = (
            *(x.requires_grad_() for x in rows), pos, slope, balls.index,
            balls.inverse, *rest, 16, 'distance')
        torch.library.opcheck(OPS.ball_attention.default, args)
        with torch.no_grad():
            out, lse = OPS.ball_attention(*args)
        args = (torch.randn_like(out), *(x.detach() for x in rows), pos,
                slope, balls.index, *rest, out, lse, 16, 'distance',
                [True, True, False, True, True])
        torch.library.opcheck(OPS.ball_attention_backward.default, args)
    return 'kept'


def check_other_ops(context: Context) -> str:
    r"""Rules for operators."""
    pos, batch = (x.to(context.device) for x in make_cloud([300, 77]))
    ptr = torch.tensor([0, 300, 377], device=context.device)
    tests = 'test_schema', 'test_faketensor'
    torch.library.opcheck(
        OPS.build_tree.default,
        (pos, ptr, None, None, [16, 16], [2], [0., 45.], [], False, False,
         'auto'),
        test_utils=tests)
    torch.library.opcheck(tree_knn_graph, (pos, batch, 4, False, 2, None),
                          test_utils=tests)
    return 'kept'


def run(context: Context) -> Iterator[Table]:
    table = Table('Checks', ['what', 'against', 'result'],
                  'Relative to the largest number.')
    checks: list[tuple[str, str, Callable[[], str]]] = []
    for name, cloud in CLOUDS.items():
        checks += [
            (f'ball trees, {name}', 'torch on the CPU, slot by slot',
             lambda c=cloud: check_trees(context, c)),
            (f'knn_graph, radius_graph, {name}', 'the CPU',
             lambda c=cloud: check_neighbors(context, c))]
    checks += [
        ('ErwinTransformer', 'the CPU', lambda: check_model(context)),
        ('ErwinTransformer, autocast to bfloat16', 'float32',
         lambda: check_autocast(context)),
        ('operators of attention', 'torch.library.opcheck',
         lambda: check_attention_ops(context)),
        ('other operators', 'torch.library.opcheck',
         lambda: check_other_ops(context))]
    if context.compiles:
        checks.append(('ErwinTransformer, compiled, fullgraph', 'eager',
                       lambda: check_compiled(context)))
    for what, against, check in checks:
        result = 'FAILED' if context.has_time() else 'no time'
        if context.has_time():
            with context.guard(what):
                result = check()
        table.rows.append([what, against, result])
    yield table
    yield check_attention.run(context)
