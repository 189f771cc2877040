r"""Attention by Triton kernels (`triton_kernels`) on GPUs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import chunked
from torch_geometric_erwin.ops.native import has_triton, works
from torch_geometric_erwin.ops.periodic import make_cell

STORAGES = torch.float32, torch.bfloat16, torch.float16
WIDEST = 256  # heads
LARGE_BALL = 32  # smaller ones share tiles


class Tiles(NamedTuple):
    r"""How many slots a program takes, how many it looks at a time, and what
    it is given for that.
    """
    rows: int
    columns: int
    warps: int
    stages: int


def serves(query: Tensor, key: Tensor, value: Tensor) -> bool:
    r"""Whether the kernels are for such rows."""
    return (query.device.type == 'cuda' and query.dtype in STORAGES
            and query.dtype == key.dtype == value.dtype
            and query.size(-1) <= WIDEST and has_triton())


def precision() -> str:
    r"""The precision of products in float32, which users set by
    :func:`torch.set_float32_matmul_precision` or
    :obj:`torch.backends.cuda.matmul`. Unless they allow TF32, it is that of
    float32, by three products in TF32, as in PyTorch's attention.
    """
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):  # of both, and of newer PyTorch
        is_allowed = matmul.fp32_precision == 'tf32'
    else:
        is_allowed = matmul.allow_tf32
    return 'tf32' if is_allowed else 'tf32x3'


def do_work(query: Tensor, pos: Tensor, box: Tensor | None, ball_size: int,
            bias: str) -> bool:
    r"""Whether they can be compiled for this, and then do what they should."""
    case = (query.device, query.dtype, query.size(2), pos.dtype, pos.size(1),
            0 if box is None else box.dim(), ball_size < LARGE_BALL, bias)
    return works('ball attention', lambda: trial(*case), *case, precision())


def trial(device: torch.device, dtype: torch.dtype, width: int,
          pos_dtype: torch.dtype, dim: int, box_dim: int, small: bool,
          bias: str) -> bool:
    r"""Whether sums and gradients are what they should be."""
    num, ball_size = 100, 16 if small else 64
    count = -(-num // ball_size) + 1  # one without points
    numbers = torch.arange(num * (8. * width + dim), device=device,
                           dtype=torch.double).mul(0.618034).frac()
    grad, qkv, pos = numbers.view(num, -1).split([2 * width, 6 * width, dim],
                                                 1)
    rows = list(qkv.to(dtype).view(num, 3, 2, width).unbind(1))
    grad, pos = grad.to(dtype).view(num, 2, width), pos.to(pos_dtype)
    slope = torch.tensor([-2., 1.], device=device) if bias else None
    mask = torch.arange(count * ball_size, device=device) < num
    index = mask.cumsum(0) - 1
    box = None
    if box_dim:  # at least float32, as those of trees
        box = _trial_box(count, dim, box_dim).to(
            device, torch.promote_types(pos_dtype, torch.float32))
    rest = index, mask, box, ball_size, bias
    found = _results(forward, backward, [*rows, grad], pos, slope, *rest)
    expected = _results(
        chunked.forward, chunked.backward, [x.double() for x in (*rows, grad)],
        pos.double(), None if slope is None else slope.double(), *rest)
    exact = dtype == torch.float32 and precision() != 'tf32'
    error = 1e-3 if exact else 2e-2
    return all(bool(((a - b).abs() <= error * (1 + b.abs().max())).all())
               for a, b in zip(found, expected, strict=True))


def _results(forward: Callable[..., Any], backward: Callable[..., Any],
             rows: list[Tensor], pos: Tensor, slope: Tensor | None,
             index: Tensor, mask: Tensor, box: Tensor | None, ball_size: int,
             bias: str) -> list[Tensor]:
    r"""Returns sums and gradients. Autograd does not work here: operators'
    kernels run below it.
    """
    *qkv, grad = rows
    rest, last = (pos, slope, index, mask, box), (ball_size, bias)
    needs = [True] * 3 + [bool(bias)] * 2
    out, lse = forward(qkv, *rest, *last)
    grads = backward([*qkv, out, grad], *rest, lse, *last, needs)
    return [out, *(x for x, need in zip(grads, needs, strict=True) if need)]


def _trial_box(count: int, dim: int, box_dim: int) -> Tensor:
    edges = torch.linspace(0.7, 0.9, dim).expand(count, dim)
    if box_dim == 2:
        return edges
    return make_cell(edges.diag_embed() + 0.4 * torch.ones(dim, dim).triu(1))


def forward_tiles(ball_size: int, width: int, dtype: torch.dtype,
                  lattice: bool = False) -> Tiles:
    r"""Chooses tiles whose numbers fit in registers, also the offsets in a
    :obj:`lattice`; balls smaller than these share them.
    """
    narrow, wide, widest = (64, 64), (64, 32), (32, 32)
    if dtype == torch.float32:
        narrow, wide, widest = (32, 32), (16, 16), (16, 16)
    size = narrow if width <= 64 else wide if width <= 128 else widest
    return _fit(*(_smaller(*size, dtype) if lattice else size), ball_size,
                width)


def backward_tiles(ball_size: int, width: int, dtype: torch.dtype,
                   moving: bool, lattice: bool = False) -> Tiles:
    r"""Chooses tiles for gradients, also of positions if these are
    :obj:`moving`.
    """
    narrow, wide, widest = (64, 32), (64, 32), (16, 32)
    if dtype == torch.float32:
        narrow, wide, widest = (32, 32), (16, 32), (16, 16)
    elif moving:
        wide = 32, 32
    size = narrow if width <= 64 else wide if width <= 128 else widest
    return _fit(*(_smaller(*size, dtype) if lattice else size), ball_size,
                width)


def _smaller(rows: int, columns: int, dtype: torch.dtype) -> tuple[int, int]:
    return min(rows, 32), min(columns, 16 if dtype == torch.float32 else 32)


def _fit(rows: int, columns: int, ball_size: int, width: int) -> Tiles:
    if ball_size < LARGE_BALL:
        return Tiles(16, 16, 1 if width <= 32 else 2 if width <= 64 else 4, 2)
    return Tiles(min(rows, ball_size), min(columns, ball_size), 4, 2)


def forward(rows: Sequence[Tensor], pos: Tensor, slope: Tensor | None,
            index: Tensor, mask: Tensor | None, box: Tensor | None,
            ball_size: int, bias: str,
            tiles: Tiles | None = None) -> tuple[Tensor, Tensor]:
    r"""Returns the sums and the logarithms (to base 2) of the softmax'
    denominators. Slots that do not fit, which the C++ kernel notices, are the
    caller's fault here.
    """
    query, key, value = rows = [_dense(x) for x in rows]
    out = query.new_empty(query.shape)
    lse = query.new_empty(query.shape[:2], dtype=torch.float32)
    if query.numel() == 0:
        return out, lse
    tiles = tiles or forward_tiles(ball_size, query.size(2), query.dtype,
                                   box is not None and box.dim() == 3)
    with torch.cuda.device_of(query):
        _launch('forward', tiles, {
            **_rows(query=query, key=key, value=value, out=out), 'lse': lse,
            **_common(query, pos, slope, index, mask, box, ball_size, bias)})
    return out, lse


def backward(rows: Sequence[Tensor], pos: Tensor, slope: Tensor | None,
             index: Tensor, mask: Tensor | None, box: Tensor | None,
             lse: Tensor, ball_size: int, bias: str, needs: Sequence[bool],
             tiles: Tiles | None = None) -> list[Tensor]:
    r"""Returns the gradients of queries, keys, values, positions and slopes,
    without elements where they are not needed. The rows are queries, keys,
    values, the sums and their gradients.
    """
    assert bias or not any(needs[3:])  # without it these play no part
    rows = [_dense(x) for x in rows]
    query, heads = rows[0], rows[0].size(1)
    tiles = tiles or backward_tiles(ball_size, query.size(2), query.dtype,
                                    needs[3],
                                    box is not None and box.dim() == 3)
    parts = -(-index.numel() // tiles.rows)
    shapes = [*(x.shape for x in rows[:3]), (heads, *pos.shape),
              (heads, parts)]
    found = [x.new_empty(shape) if need else None for x, shape, need in zip(
        [*rows[:3], lse, lse], shapes, needs, strict=True)]
    if query.numel() > 0:
        with torch.cuda.device_of(query):
            _backward(rows, found, lse, tiles, _common(
                query, pos, slope, index, mask, box, ball_size, bias))
    else:
        found = [None if x is None else x.zero_() for x in found]
    *d_rows, d_pos, d_slope = found
    sums = [*d_rows, None if d_pos is None else d_pos.sum(0),
            None if d_slope is None else d_slope.sum(1)]
    like = [*rows[:3], pos, query if slope is None else slope]
    return [x.new_empty(0) if total is None else total.to(x.dtype)
            for x, total in zip(like, sums, strict=True)]


def _backward(rows: Sequence[Tensor], found: Sequence[Tensor | None],
              lse: Tensor, tiles: Tiles, common: dict[str, Any]) -> None:
    query, key, value, out, grad = rows
    d_query, d_key, d_value, d_pos, d_slope = found
    common |= {'lse': lse, 'delta': torch.empty_like(lse), 'd_pos': d_pos,
               'num_points': len(query),
               'SPACE': _power_of_two(common['DIM'])}
    _launch('backward', tiles, {
        **_rows(left=query, right=grad, left_other=key, right_other=value,
                out=out, d_left=d_query, d_right=None),
        **common, 'd_slope': d_slope, 'QUERIES': True})
    if any(x is not None for x in (d_key, d_value, d_pos)):
        _launch('backward', tiles, {
            **_rows(left=key, right=value, left_other=query, right_other=grad,
                    out=None, d_left=d_key, d_right=d_value),
            **common, 'd_slope': None, 'QUERIES': False})


def _launch(name: str, tiles: Tiles, args: dict[str, Any]) -> None:
    from torch_geometric_erwin.ops.ball_attention import triton_kernels
    programs = -(-args['num_slots'] // tiles.rows) * args['heads']
    getattr(triton_kernels, name)[programs, ](
        **args, SPAN=max(args['BALL'], tiles.rows), ROWS=tiles.rows,
        COLUMNS=tiles.columns, num_warps=tiles.warps, num_stages=tiles.stages)


def _common(query: Tensor, pos: Tensor, slope: Tensor | None, index: Tensor,
            mask: Tensor | None, box: Tensor | None, ball_size: int,
            bias: str) -> dict[str, Any]:
    r"""Returns what all kernels are given, a missing tensor as None."""
    width = query.size(2)
    points, counts = _gather(index.contiguous(), mask, ball_size)
    if slope is not None:
        slope = slope.float().contiguous()
        pos = (pos if pos.dtype == torch.float64 else pos.float()).contiguous()
        box = None if box is None else box.to(pos.dtype).contiguous()
    return {
        'points': points, 'counts': counts, 'num_slots': index.numel(),
        'slope': slope, 'pos': None if slope is None else pos,
        'box': None if slope is None else box, 'DIM': pos.size(1),
        'BOX_ROWS': 1 if box is None or box.dim() == 2 else box.size(1),
        'SQUARED': bias == 'squared', 'heads': query.size(1),
        'scale': width**-0.5, 'E': width,
        'WIDTH': max(_power_of_two(width), 16), 'BALL': ball_size,
        'PRECISION': precision(),
    }


def _gather(index: Tensor, mask: Tensor | None,
            ball_size: int) -> tuple[Tensor, Tensor | None]:
    r"""Returns the points of the balls and, where slots are virtual, how many
    a ball has: the others come last.
    """
    if mask is None:
        return index, None
    from torch_geometric_erwin.ops.ball_attention import triton_kernels
    points = torch.empty_like(index)
    balls = index.numel() // ball_size
    counts = index.new_empty(balls, dtype=torch.int32)
    chunk = min(ball_size, 1024)
    group = 1024 // chunk
    triton_kernels.gather[-(-balls // group), ](
        index, mask.contiguous().view(torch.uint8), points, counts,
        index.numel(), BALL=ball_size, GROUP=group, CHUNK=chunk)
    return points, counts


def _rows(**rows: Tensor | None) -> dict[str, Any]:
    r"""Returns them with their strides."""
    args: dict[str, Any] = {}
    for name, x in rows.items():
        args[name] = x
        args[f'{name}_stride'] = 0 if x is None else x.stride(0)
        args[f'{name}_head_stride'] = 0 if x is None else x.stride(1)
    return args


def _dense(x: Tensor) -> Tensor:
    r"""The kernels take any strides but that of a head's numbers."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _power_of_two(x: int) -> int:
    return 1 << (x - 1).bit_length()
