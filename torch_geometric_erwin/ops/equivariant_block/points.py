r"""What is done to a block's vectors point by point, between the products of
matrices, by the C++ kernels (`csrc/equivariant_block`). The formulas are in
`reference`.
"""

import ctypes

import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import fresh, library, widest
from torch_geometric_erwin.ops.vectors import EPS, EPS_NORM

WIDEST = widest()  # of the variants; tests take others
OPS = {'assemble': 0, 'relative': 1, 'hide': 2, 'gate': 3,
       'gate_backward': 4, 'hide_backward': 5, 'relative_backward': 6,
       'assemble_backward': 7}
TENSORS = ('vec', 'offset', 'pos_vec', 'qkv', 'lifted', 'rows', 'out', 'sums',
           'turn', 'hidden', 'lengths', 'gate', 'product', 'residual',
           'd_vec', 'd_rows', 'd_sums', 'd_lengths', 'd_qkv', 'd_lifted',
           'd_out', 'd_turn', 'd_gate', 'd_offset', 'd_pos_vec')


class _Args(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in TENSORS),
        *((name, ctypes.c_int64) for name in (
            'points', 'dim', 'channels', 'heads', 'scalars', 'vectors',
            'number')),
        *((name, ctypes.c_float) for name in ('eps', 'eps_norm')),
        ('num_threads', ctypes.c_int32),
    ]


def assemble(qkv: Tensor, lifted: Tensor, vec: Tensor, offset: Tensor,
             pos_vec: Tensor, rows: Tensor) -> None:
    r"""Makes :obj:`rows`, queries, keys and values of all heads, of scalars
    and of what linear maps make of vectors, before these are normalized.
    """
    both = rows.size(3) - offset.size(1) * pos_vec.size(2)
    _call('assemble', vec, pos_vec, both - pos_vec.size(2), qkv=qkv,
          lifted=lifted, offset=offset, rows=rows)


def assemble_backward(
    d_rows: Tensor, rows: Tensor, vec: Tensor, offset: Tensor,
    pos_vec: Tensor, d_offset: Tensor, d_vec: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the gradients of scalars, of vectors before they are
    normalized, and of positions' weight; adds to those of offsets and, by way
    of their length, of vectors.
    """
    n, heads, _, width = rows.shape
    (_, dim), u = offset.shape, pos_vec.size(2)
    both = width - dim * u
    d_qkv = fresh(rows, n, heads * 3 * both)
    d_lifted = fresh(rows, n, dim, heads * 3 * u)
    d_pos_vec = torch.empty_like(pos_vec)
    _call('assemble_backward', vec, pos_vec, both - u, d_rows=d_rows,
          rows=rows, offset=offset, d_offset=d_offset, d_qkv=d_qkv,
          d_lifted=d_lifted, residual=d_vec, d_vec=d_vec, d_pos_vec=d_pos_vec)
    return d_qkv, d_lifted, d_pos_vec


def relative(out: Tensor, offset: Tensor,
             pos_vec: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns scalars and lengths of the heads' sums, shape :math:`(N, H (s
    + u))`, and vectors relative to points, shape :math:`(N, D, H u)`.
    """
    n, heads, width = out.shape
    (_, dim), u = offset.shape, pos_vec.size(2)
    both = width - dim * u
    sums, turn = fresh(out, n, heads * both), fresh(out, n, dim, heads * u)
    _call('relative', turn, pos_vec, both - u, out=out, offset=offset,
          sums=sums, turn=turn)
    return sums, turn


def relative_backward(d_sums: Tensor, d_turn: Tensor, sums: Tensor,
                      turn: Tensor, out: Tensor, offset: Tensor,
                      pos_vec: Tensor, d_out: Tensor,
                      d_offset: Tensor) -> None:
    r"""Makes the gradients of the heads' sums and of offsets."""
    u = pos_vec.size(2)
    scalars = out.size(2) - (1 + offset.size(1)) * u
    _call('relative_backward', turn, pos_vec, scalars, d_sums=d_sums,
          d_turn=d_turn, sums=sums, turn=turn, out=out, offset=offset,
          d_out=d_out, d_offset=d_offset)


def hide(hidden: Tensor, vec: Tensor) -> Tensor:
    r"""Returns lengths of hidden vectors, and divides these, in place, by the
    root mean square of vectors.
    """
    lengths = fresh(hidden, hidden.size(0), hidden.size(2))
    _call('hide', vec, hidden=hidden, lengths=lengths)
    return lengths


def hide_backward(grad: Tensor, d_lengths: Tensor, hidden: Tensor,
                  lengths: Tensor, vec: Tensor, residual: Tensor,
                  d_vec: Tensor) -> None:
    r"""Makes the gradient of hidden vectors, in place, that of what they were
    before; makes that of vectors by way of their length, plus a residual.
    """
    _call('hide_backward', vec, product=grad, d_lengths=d_lengths,
          hidden=hidden, lengths=lengths, residual=residual, d_vec=d_vec)


def gate(factor: Tensor, hidden: Tensor) -> Tensor:
    product = fresh(hidden, *hidden.shape)
    _call('gate', hidden, gate=factor, hidden=hidden, product=product)
    return product


def gate_backward(grad: Tensor, factor: Tensor, hidden: Tensor) -> Tensor:
    r"""Makes the gradient of gated vectors that of hidden ones, in place;
    returns that of the factor.
    """
    d_gate = fresh(factor, *factor.shape)
    _call('gate_backward', hidden, gate=factor, hidden=hidden, product=grad,
          d_gate=d_gate)
    return d_gate


def _call(op: str, vec: Tensor, pos_vec: Tensor | None = None,
          scalars: int = 0, **tensors: Tensor) -> None:
    lib = library()
    assert lib is not None
    tensors['vec'] = vec
    if pos_vec is not None:
        tensors['pos_vec'] = pos_vec
    # What is written to is contiguous already.
    inputs = {name: x.contiguous() for name, x in tensors.items()}
    heads, _, vectors = (0, 0, 0) if pos_vec is None else pos_vec.shape
    args = _Args(
        **{name: x.data_ptr() for name, x in inputs.items()},
        points=vec.size(0), dim=vec.size(1), channels=vec.size(2),
        heads=heads, scalars=scalars, vectors=vectors,
        number=tensors['hidden'].size(2) if 'hidden' in tensors else 0,
        eps=EPS, eps_norm=EPS_NORM, num_threads=torch.get_num_threads())
    if lib.tge_points(ctypes.byref(args), OPS[op], WIDEST) == 2:
        raise MemoryError(f'Not enough memory for vectors of {vec.size(0)} '
                          f'points')
