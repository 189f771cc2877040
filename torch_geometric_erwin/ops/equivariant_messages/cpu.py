r"""Messages on scalars and vectors by the C++ kernels
(`csrc/equivariant_messages`).
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_geometric_erwin.ops.equivariant_messages.reference import (
    shared_needs,
)
from torch_geometric_erwin.ops.native import fresh, library, widest

WIDEST = widest()  # of the variants; tests take others
STORAGES = torch.float32, torch.bfloat16, torch.float16
VARIABLES = 'src', 'dst', 'vec', 'edge', 'unit', 'weight', 'scale', 'shift'
INPUTS = (*VARIABLES, 'source', 'in_ptr', 'in_edges', 'out_ptr', 'out_rows',
          'in_rows', 'parts', 'order', 'grad', 'grad_vec')
RESULTS = ('out', 'out_vec', 'd_src', 'd_dst', 'd_vec', 'd_edge', 'd_unit',
           'd_weight', 'd_scale', 'd_shift')
SIZES = ('sources', 'targets', 'edges', 'channels', 'dim', 'numbers',
         'src_ld', 'dst_ld')


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
            lists: Sequence[Tensor | None], aggr: str,
            eps: float) -> tuple[Tensor, Tensor]:
    dst, vec = variables[1], variables[2]
    assert dst is not None and vec is not None
    out = fresh(dst, *dst.shape, dtype=torch.float32)
    out_vec = fresh(dst, dst.size(0), vec.size(1), 2 * dst.size(1),
                    dtype=torch.float32)
    _call(variables, edge_index, lists, aggr, eps, {}, out=out,
          out_vec=out_vec)
    return out.to(dst.dtype), out_vec.to(dst.dtype)


def backward(grads: Sequence[Tensor], variables: Sequence[Tensor | None],
             edge_index: Tensor, lists: Sequence[Tensor | None], aggr: str,
             eps: float, needs: Sequence[bool]) -> list[Tensor | None]:
    r"""Returns the gradients of the variables that need them; those of
    weights come along.
    """
    needs = shared_needs(needs)
    found: dict[str, Tensor] = {}
    for name, x, need in zip(VARIABLES, variables, needs, strict=True):
        if x is None or not (need or name in ('weight', 'scale', 'shift')):
            continue
        shape = x.t().shape if name == 'weight' else x.shape
        found[f'd_{name}'] = fresh(x, *shape, dtype=torch.float32)
    _call(variables, edge_index, lists, aggr, eps,
          dict(zip(('grad', 'grad_vec'), grads, strict=True)), **found)
    found['d_weight'] = found['d_weight'].t().contiguous()
    return [found[f'd_{name}'].to(x.dtype) if need and x is not None else None
            for name, x, need in zip(VARIABLES, variables, needs,
                                     strict=True)]


def _call(variables: Sequence[Tensor | None], edge_index: Tensor,
          lists: Sequence[Tensor | None], aggr: str, eps: float,
          grads: dict[str, Tensor], **results: Tensor) -> None:
    lib = library()
    assert lib is not None
    tensors = {name: None if x is None else x.float() for name, x in
               [*zip(VARIABLES, variables, strict=True), *grads.items()]}
    tensors.update(zip(INPUTS[len(VARIABLES):], [edge_index[0], *lists],
                       strict=False))
    # Rows of scalars may be any distance apart.
    inputs = {name: x if x is None or (
        name in ('src', 'dst') and x.stride(1) == 1) else x.contiguous()
        for name, x in tensors.items()}
    src, dst, vec, edge = (inputs[name] for name in ('src', 'dst', 'vec',
                                                     'edge'))
    assert (src is not None and dst is not None and vec is not None
            and edge is not None)
    args = _Args(
        **{name: None if x is None else x.data_ptr()
           for name, x in (inputs | results).items()},
        sources=src.size(0), targets=dst.size(0), edges=edge.size(0),
        channels=src.size(1), dim=vec.size(1), numbers=edge.size(1),
        src_ld=src.stride(0), dst_ld=dst.stride(0), is_mean=aggr == 'mean',
        num_threads=torch.get_num_threads(), eps=eps)
    status = lib.tge_equivariant_messages(ctypes.byref(args), bool(grads),
                                          WIDEST)
    if status == 2:
        raise MemoryError(f'Not enough memory for {edge.size(0)} edges of '
                          f'{src.size(1)} channels')
