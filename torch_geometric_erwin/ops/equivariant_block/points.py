r"""What is done to a block's vectors point by point, between the products of
matrices, by the C++ kernels (`csrc/equivariant_block`). The formulas are in
`reference`.
"""

import ctypes

import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import fresh, library
from torch_geometric_erwin.ops.vectors import EPS, EPS_NORM

OPS = {'assemble': 0, 'relative': 1, 'hide': 2, 'gate': 3,
       'gate_backward': 4, 'hide_backward': 5, 'relative_backward': 6,
       'assemble_backward': 7}
TENSORS = ('vec', 'offset', 'pos_vec', 'qkv', 'lifted', 'unit', 'rows', 'out',
           'sums', 'turn', 'hidden', 'lengths', 'gate', 'product', 'along',
           'd_rows', 'd_sums', 'd_lengths', 'd_qkv', 'd_lifted', 'd_out',
           'd_turn', 'd_gate', 'd_offset', 'd_pos_vec')


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
             pos_vec: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns queries, keys and values of all heads, and one over the root
    mean square of vectors, by which :obj:`lifted` is multiplied in place.
    """
    n, dim = offset.shape
    heads, _, u = pos_vec.shape
    both = qkv.size(1) // (3 * heads)
    rows = fresh(qkv, n, heads, 3, both + dim * u)
    unit = qkv.new_empty(n)
    _call('assemble', vec, pos_vec, both - u, qkv=qkv, lifted=lifted,
          offset=offset, rows=rows, unit=unit)
    return rows, unit


def assemble_backward(
    d_rows: Tensor, rows: Tensor, lifted: Tensor, vec: Tensor, unit: Tensor,
    offset: Tensor, pos_vec: Tensor, d_offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Returns the gradients of scalars, of vectors before they are
    multiplied, of their length, and of positions' weight; adds to that of
    offsets.
    """
    n, heads, _, width = rows.shape
    both = width - offset.size(1) * pos_vec.size(2)
    d_qkv = fresh(rows, n, heads * 3 * both)
    d_lifted = fresh(lifted, *lifted.shape)
    along, d_pos_vec = torch.empty_like(unit), torch.empty_like(pos_vec)
    _call('assemble_backward', vec, pos_vec, both - pos_vec.size(2),
          d_rows=d_rows, rows=rows, lifted=lifted, unit=unit, offset=offset,
          d_offset=d_offset, d_qkv=d_qkv, d_lifted=d_lifted, along=along,
          d_pos_vec=d_pos_vec)
    return d_qkv, d_lifted, along, d_pos_vec


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
                      pos_vec: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the gradients of the heads' sums and of offsets."""
    d_out, d_offset = fresh(out, *out.shape), torch.empty_like(offset)
    u = pos_vec.size(2)
    scalars = out.size(2) - (1 + offset.size(1)) * u
    _call('relative_backward', turn, pos_vec, scalars, d_sums=d_sums,
          d_turn=d_turn, sums=sums, turn=turn, out=out, offset=offset,
          d_out=d_out, d_offset=d_offset)
    return d_out, d_offset


def hide(hidden: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns lengths of hidden vectors, and one over the root mean square of
    vectors, by which :obj:`hidden` is multiplied in place.
    """
    lengths = fresh(hidden, hidden.size(0), hidden.size(2))
    unit = hidden.new_empty(hidden.size(0))
    _call('hide', vec, hidden=hidden, lengths=lengths, unit=unit)
    return lengths, unit


def hide_backward(grad: Tensor, d_lengths: Tensor, hidden: Tensor,
                  lengths: Tensor, vec: Tensor, unit: Tensor) -> Tensor:
    r"""Makes the gradient of hidden vectors that of vectors before they are
    multiplied, in place; returns that of their length.
    """
    along = torch.empty_like(unit)
    _call('hide_backward', vec, product=grad, d_lengths=d_lengths,
          hidden=hidden, lengths=lengths, unit=unit, along=along)
    return along


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
    if lib.tge_points(ctypes.byref(args), OPS[op]) == 2:
        raise MemoryError(f'Not enough memory for vectors of {vec.size(0)} '
                          f'points')
