r"""Messages by the C++ kernels (`csrc/message_passing`)."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import fresh, library, widest

WIDEST = widest()  # of the variants; tests take others
STORAGES = torch.float32, torch.bfloat16, torch.float16
INPUTS = ('src', 'dst', 'edge', 'weight', 'scale', 'shift', 'source',
          'in_ptr', 'in_edges', 'out_ptr', 'out', 'in_rows', 'parts', 'order',
          'grad')
RESULTS = ('result', 'd_src', 'd_dst', 'd_edge', 'd_weight', 'd_scale',
           'd_shift')
SIZES = ('sources', 'targets', 'edges', 'channels', 'dims', 'src_ld',
         'dst_ld')


class _Args(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in (*INPUTS, *RESULTS)),
        *((name, ctypes.c_int64) for name in SIZES),
        ('is_mean', ctypes.c_int32),
        ('num_threads', ctypes.c_int32),
        ('eps', ctypes.c_float),
    ]


@torch.compiler.assume_constant_result
def available() -> bool:
    return library() is not None


def serves(src: Tensor) -> bool:
    r"""Whether the kernels take such rows."""
    return (src.device.type == 'cpu' and src.dtype in STORAGES
            and available())


def forward(variables: Sequence[Tensor | None], edge_index: Tensor,
            lists: Sequence[Tensor | None], aggr: str, eps: float) -> Tensor:
    src, dst = variables[:2]
    assert src is not None and dst is not None
    out = fresh(dst, *dst.shape, dtype=torch.float32)
    _call(variables, edge_index, lists, aggr, eps, result=out)
    return out.to(src.dtype)


def backward(grad: Tensor, variables: Sequence[Tensor | None],
             edge_index: Tensor, lists: Sequence[Tensor | None], aggr: str,
             eps: float, needs: Sequence[bool]) -> list[Tensor | None]:
    r"""Returns the gradients of the variables that need them; those of
    weights come along.
    """
    weight, scale, shift = variables[3:]
    assert weight is not None and scale is not None
    found = {}
    for name, x, need in zip(('d_src', 'd_dst', 'd_edge'), variables, needs,
                             strict=False):
        if need:
            assert x is not None
            found[name] = fresh(x, *x.shape, dtype=torch.float32)
    found['d_weight'] = scale.new_empty(weight.t().shape, dtype=torch.float32)
    found['d_scale'] = scale.new_empty(scale.shape, dtype=torch.float32)
    if shift is not None:
        found['d_shift'] = shift.new_empty(shift.shape, dtype=torch.float32)
    _call(variables, edge_index, lists, aggr, eps, grad=grad, **found)
    found['d_weight'] = found['d_weight'].t().contiguous()
    return [found[name].to(x.dtype) if need and x is not None else None
            for name, x, need in zip(RESULTS[1:], variables, needs,
                                     strict=True)]


def _call(variables: Sequence[Tensor | None], edge_index: Tensor,
          lists: Sequence[Tensor | None], aggr: str, eps: float,
          grad: Tensor | None = None, **results: Tensor) -> None:
    lib = library()
    assert lib is not None
    src, dst, *rest = (x if x is None else x.float() for x in variables)
    assert src is not None and dst is not None
    src, dst, edge = _rows(src), _rows(dst), rest[0]
    assert edge is not None
    inputs = dict(zip(INPUTS, (
        src, dst, *(x if x is None else x.contiguous() for x in rest),
        edge_index[0].contiguous(),
        *(x if x is None else x.contiguous() for x in lists),
        grad if grad is None else grad.float().contiguous()), strict=True))
    args = _Args(
        **{name: None if x is None else x.data_ptr()
           for name, x in (inputs | results).items()},
        sources=src.size(0), targets=dst.size(0), edges=edge.size(0),
        channels=src.size(1), dims=edge.size(1), src_ld=src.stride(0),
        dst_ld=dst.stride(0), is_mean=aggr == 'mean',
        num_threads=torch.get_num_threads(), eps=eps)
    status = lib.tge_messages(ctypes.byref(args), grad is not None, WIDEST)
    if status == 2:
        raise MemoryError(f'Not enough memory for {edge.size(0)} edges of '
                          f'{src.size(1)} channels')


def _rows(x: Tensor) -> Tensor:
    r"""The kernels take rows that are any distance apart."""
    return x if x.stride(1) == 1 else x.contiguous()
