r"""Fused layers by the C++ kernels (`csrc/dense`), without derivatives.

The formulas are in `reference`. A row's result has the same bits whatever the
other rows are, and all results have whatever the number of threads is.
"""

import ctypes
import functools

import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import fresh, library, widest

OPS = {'linear': 0, 'norm_linear': 1, 'swiglu': 2}
WIDEST = widest()  # of the variants; tests take others
SUMS = ('weight', 'bias', 'weight_out', 'bias_out', 'scale', 'pos_weight',
        'pos_bias')
TENSORS = ('x', 'scale', 'offset', 'pos_weight', 'pos_bias', 'weight', 'bias',
           'weight_out', 'bias_out', 'residual', 'grad', 'out', 'd_offset')
_Sums = ctypes.c_void_p * len(SUMS)


class _Args(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in TENSORS),
        ('sums', _Sums),
        *((name, ctypes.c_int64) for name in (
            'rows', 'channels', 'outputs', 'hidden', 'dim')),
        ('num_threads', ctypes.c_int32),
        ('eps', ctypes.c_float),
    ]


@torch.compiler.assume_constant_result
def available() -> bool:
    r"""Whether there are kernels that are worth it on this machine."""
    lib = library()
    return lib is not None and _is_fast(lib)


@functools.cache
def _is_fast(lib: ctypes.CDLL) -> bool:
    return bool(lib.tge_has_fast_dense())


def serves(x: Tensor) -> bool:
    r"""Whether the kernels take such rows."""
    return (x.device.type == 'cpu' and x.dtype == torch.float32
            and available())


def norm_linear(x: Tensor, scale: Tensor, eps: float, offset: Tensor,
                pos_weight: Tensor, pos_bias: Tensor, weight: Tensor,
                bias: Tensor) -> Tensor:
    out = fresh(x, x.size(0), weight.size(0))
    _call('norm_linear', out, eps, x=x, scale=scale, offset=offset,
          pos_weight=pos_weight, pos_bias=pos_bias, weight=weight, bias=bias)
    return out


def norm_linear_backward(
    grad: Tensor, x: Tensor, scale: Tensor, eps: float, offset: Tensor,
    pos_weight: Tensor, pos_bias: Tensor, weight: Tensor,
    residual_grad: Tensor | None, needs_offset: bool,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor]:
    r"""Returns the gradients of the forward pass' tensors, in its order, and
    adds :obj:`residual_grad` to that of :obj:`x`, which may replace it.
    """
    out = _like(x) if out is None else out
    d_offset = _like(offset) if needs_offset else None
    sums = {'scale': _like(scale), 'pos_weight': _like(pos_weight),
            'pos_bias': _like(pos_bias), 'weight': _like(weight),
            'bias': grad.new_empty(grad.size(1))}
    _call('norm_linear', out, eps, sums, x=x, scale=scale, offset=offset,
          pos_weight=pos_weight, pos_bias=pos_bias, weight=weight, grad=grad,
          residual=residual_grad, d_offset=d_offset)
    return (out, sums['scale'], d_offset, sums['pos_weight'],
            sums['pos_bias'], sums['weight'], sums['bias'])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None,
           residual: Tensor | None = None,
           out: Tensor | None = None) -> Tensor:
    r"""Writes the result to :obj:`out`, if it is given."""
    out = fresh(x, x.size(0), weight.size(0)) if out is None else out
    _call('linear', out, x=x, weight=weight, bias=bias, residual=residual)
    return out


def linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool = True,
    residual_grad: Tensor | None = None, out: Tensor | None = None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    r"""Returns the gradients of rows, weight and bias, and adds
    :obj:`residual_grad` to the first, which may replace it.
    """
    out = _like(x) if needs_x and out is None else out
    sums = {'weight': _like(weight), 'bias': grad.new_empty(grad.size(1))}
    _call('linear', out, 0., sums, x=x, weight=weight, grad=grad,
          residual=residual_grad)
    return out, sums['weight'], sums['bias']


def swiglu(x: Tensor, scale: Tensor, eps: float, w_in: Tensor, b_in: Tensor,
           w_out: Tensor, b_out: Tensor, out: Tensor | None = None) -> Tensor:
    out = _like(x) if out is None else out
    _call('swiglu', out, eps, x=x, scale=scale, weight=w_in, bias=b_in,
          weight_out=w_out, bias_out=b_out)
    return out


def swiglu_backward(
    grad: Tensor, x: Tensor, scale: Tensor, eps: float, w_in: Tensor,
    b_in: Tensor, w_out: Tensor, out: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Returns the gradients of the forward pass' tensors, in its order."""
    out = _like(x) if out is None else out
    sums = {'scale': _like(scale), 'weight': _like(w_in), 'bias': _like(b_in),
            'weight_out': _like(w_out),
            'bias_out': grad.new_empty(grad.size(1))}
    _call('swiglu', out, eps, sums, x=x, scale=scale, weight=w_in, bias=b_in,
          weight_out=w_out, grad=grad)
    return (out, sums['scale'], sums['weight'], sums['bias'],
            sums['weight_out'], sums['bias_out'])


def _like(x: Tensor) -> Tensor:
    return fresh(x, *x.shape)


def _call(op: str, out: Tensor | None, eps: float = 0.,
          sums: dict[str, Tensor] | None = None,
          **tensors: Tensor | None) -> None:
    r"""Fills :obj:`out`, and gradients, if there are :obj:`sums`."""
    lib = library()
    assert lib is not None
    inputs = {name: x.contiguous() for name, x in tensors.items()
              if x is not None}
    x, outputs = inputs['x'], inputs['weight'].size(0)
    found = sums or {}
    args = _Args(
        **{name: x.data_ptr() for name, x in inputs.items()},
        out=None if out is None else out.data_ptr(),
        sums=_Sums(*(found[name].data_ptr() if name in found else None
                     for name in SUMS)),
        rows=x.size(0), channels=x.size(1), outputs=outputs,
        hidden=outputs // 2,
        dim=inputs['offset'].size(1) if 'offset' in inputs else 0,
        num_threads=torch.get_num_threads(), eps=eps)
    status = lib.tge_dense(ctypes.byref(args), OPS[op], sums is not None,
                           WIDEST)
    if status == 2:
        raise MemoryError(f'Not enough memory for {x.size(0)} rows of '
                          f'{x.size(1)} channels')
