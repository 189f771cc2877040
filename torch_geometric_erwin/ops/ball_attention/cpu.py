r"""Attention by the C++ kernel (`csrc/attention/ball_attention.cpp`)."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import fresh, library, pointer, widest

BIASES = {'': 0, 'distance': 1, 'squared': 2}
STORAGES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
WIDEST = widest()  # of the variants; tests take others


class _Rows(ctypes.Structure):
    _fields_ = [
        ('data', ctypes.c_void_p),
        ('point', ctypes.c_int64),
        ('head', ctypes.c_int64),
    ]


class _Args(ctypes.Structure):
    _fields_ = [
        *((name, _Rows) for name in ('query', 'key', 'value', 'out', 'grad',
                                     'd_query', 'd_key', 'd_value')),
        *((name, ctypes.c_void_p) for name in (
            'pos', 'box', 'slope', 'index', 'mask', 'lse', 'd_pos',
            'd_slope')),
        *((name, ctypes.c_int64) for name in (
            'num_points', 'num_balls', 'ball_size', 'heads', 'width', 'dim',
            'box_rows')),
        *((name, ctypes.c_int32) for name in (
            'storage', 'bias', 'pos_is_double', 'num_threads')),
    ]


@torch.compiler.assume_constant_result
def available() -> bool:
    return library() is not None


def serves(query: Tensor, key: Tensor, value: Tensor) -> bool:
    r"""Whether the kernel takes such rows."""
    return (query.device.type == 'cpu' and query.dtype in STORAGES
            and query.dtype == key.dtype == value.dtype and available())


def forward(rows: Sequence[Tensor], pos: Tensor, slope: Tensor | None,
            index: Tensor, mask: Tensor | None, box: Tensor | None,
            ball_size: int, bias: str) -> tuple[Tensor, Tensor]:
    r"""Returns the sums and the logarithms of the softmax' denominators."""
    rows = [_dense(x) for x in rows]
    query = rows[0]
    out = fresh(query, *query.shape)
    lse = fresh(query, *query.shape[:2], dtype=torch.float32)
    places = dict(zip(('query', 'key', 'value', 'out'), [*rows, out],
                      strict=True))
    _call(False, places, pos, slope, index, mask, box, lse, ball_size, bias)
    return out, lse


def backward(rows: Sequence[Tensor], pos: Tensor, slope: Tensor | None,
             index: Tensor, mask: Tensor | None, box: Tensor | None,
             lse: Tensor, ball_size: int, bias: str, needs: Sequence[bool],
             found: list[Tensor] | None = None) -> list[Tensor]:
    r"""Returns the gradients of queries, keys, values, positions and slopes,
    without elements where they are not needed. The rows are queries, keys,
    values, the sums and their gradients. The first three gradients go to
    what is :obj:`found`, if that is given.
    """
    assert bias or not any(needs[3:])  # without it these play no part
    rows = [_dense(x) for x in rows]
    places = dict(zip(('query', 'key', 'value', 'out', 'grad'), rows,
                      strict=True))
    if found is None:
        found = [fresh(x, *x.shape) if need else x.new_empty(0)
                 for x, need in zip(rows[:3], needs, strict=False)]
    names = 'd_query', 'd_key', 'd_value'
    places.update({name: x for name, x, need in zip(names, found, needs,
                                                    strict=False) if need})
    d_pos = _precise(pos).new_empty(pos.shape if needs[3] else 0)
    d_slope = lse.new_empty(rows[0].size(1) if needs[4] else 0)
    _call(True, places, pos, slope, index, mask, box, lse, ball_size, bias,
          d_pos if needs[3] else None, d_slope if needs[4] else None)
    if slope is not None:
        d_slope = d_slope.to(slope.dtype)
    return [*found, d_pos.to(pos.dtype), d_slope]


def _call(is_backward: bool, places: dict[str, Tensor], pos: Tensor,
          slope: Tensor | None, index: Tensor, mask: Tensor | None,
          box: Tensor | None, lse: Tensor, ball_size: int, bias: str,
          d_pos: Tensor | None = None, d_slope: Tensor | None = None) -> None:
    lib = library()
    assert lib is not None
    pos = _precise(pos).contiguous()
    box = None if box is None else box.to(pos.dtype).contiguous()
    slope = None if slope is None else slope.float().contiguous()
    index = index.contiguous()
    mask = None if mask is None else mask.contiguous()
    query = places['query']
    args = _Args(
        **{name: _Rows(x.data_ptr(), x.stride(0), x.stride(1))
           for name, x in places.items()},
        pos=pointer(pos), box=pointer(box), slope=pointer(slope),
        index=pointer(index), mask=pointer(mask), lse=pointer(lse),
        d_pos=pointer(d_pos), d_slope=pointer(d_slope),
        num_points=query.size(0), num_balls=index.numel() // ball_size,
        ball_size=ball_size, heads=query.size(1), width=query.size(2),
        dim=pos.size(1), box_rows=1 if box is None or box.dim() == 2 else (
            box.size(1)), storage=STORAGES[query.dtype], bias=BIASES[bias],
        pos_is_double=pos.dtype == torch.float64,
        num_threads=torch.get_num_threads())
    status = lib.tge_ball_attention(ctypes.byref(args), is_backward, WIDEST)
    if status == 1:
        raise ValueError(f"Expected 'balls' to hold each of {len(query)} "
                         f"points once (got {_slots(index, mask)} slots of "
                         f"points {_range(index)})")
    if status == 2:
        raise MemoryError(f"Not enough memory for attention in balls of "
                          f"{ball_size} slots")


def _slots(index: Tensor, mask: Tensor | None) -> int:
    return index.numel() if mask is None else int(mask.sum())


def _range(index: Tensor) -> str:
    return f'{int(index.min())} to {int(index.max())}'


def _dense(x: Tensor) -> Tensor:
    r"""The kernel takes any strides but that of a head's numbers."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _precise(pos: Tensor) -> Tensor:
    return pos if pos.dtype == torch.float64 else pos.float()
