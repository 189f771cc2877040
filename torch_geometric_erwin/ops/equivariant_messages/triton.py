r"""Messages on scalars and vectors by Triton kernels (`triton_kernels`) on
GPUs.
"""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from torch_geometric_erwin.ops.equivariant_messages import reference
from torch_geometric_erwin.ops.message_passing import trials
from torch_geometric_erwin.ops.message_passing.triton import (
    MOST_DIMS,
    PROGRAMS,
    STORAGES,
    WIDEST,
    dense,
    power_of_two,
    sizes_of,
)
from torch_geometric_erwin.ops.native import has_triton, works

MOST_AXES = 5
FEW_DIMS = 8  # for whose weights no products of matrices are formed
# How many edges times channels each thread takes at a time.
NUMBERS = {'forward': 16, 'backward': 8, 'backward_sources': 8}


def serves(src: Tensor, axes: int, dims: int) -> bool:
    r"""Whether the kernels are for such rows."""
    return (src.device.type == 'cuda' and src.dtype in STORAGES
            and src.size(1) <= WIDEST and axes <= MOST_AXES
            and 0 < dims <= MOST_DIMS and has_triton() and has_tuples())


@torch.compiler.assume_constant_result
def has_tuples() -> bool:
    r"""Whether Triton knows tuples, as it does since version 3.3."""
    return hasattr(import_module('triton.language'), 'tuple')


def do_work(variables: Sequence[Any], aggr: str) -> bool:
    r"""Whether they can be compiled for this, and then do what they should."""
    src, _, vec, edge, _, weight, _, shift = variables
    case = (src.device, src.dtype, weight.dtype, src.size(1), vec.size(1),
            edge.size(1), shift is not None, aggr)
    return works('equivariant messages', lambda: trial(*case), *case)


def trial(device: torch.device, dtype: torch.dtype, weight_dtype: torch.dtype,
          channels: int, axes: int, dims: int, has_shift: bool,
          aggr: str) -> bool:
    r"""Whether sums and gradients are what they should be."""
    edge_index, lists = trials.make_edges(device)
    numbers, wide = (partial(trials.numbers, device, x)
                     for x in (dtype, weight_dtype))
    sources, targets, edges = trials.SOURCES, trials.TARGETS, trials.EDGES
    variables = [
        numbers(sources, channels), numbers(targets, channels),
        numbers(sources, axes, channels), numbers(edges, dims),
        numbers(edges, axes), wide(channels, dims), wide(channels),
        wide(channels) if has_shift else None]
    grads = [numbers(targets, channels), numbers(targets, axes, 2 * channels)]

    def run(forward: Any, backward: Any, grad: Tensor, grad_vec: Tensor,
            *some: Any) -> list[Any]:
        rest = edge_index, lists, aggr, 1e-5
        needs = [x is not None for x in some]
        return [*forward(some, *rest),
                *backward((grad, grad_vec), some, *rest, needs)]

    return trials.agree(run, (forward, backward),
                        (reference.forward, reference.backward),
                        [*grads, *variables])


def forward(variables: Sequence[Any], edge_index: Tensor,
            lists: Sequence[Any], aggr: str,
            eps: float) -> tuple[Tensor, Tensor]:
    src, dst, vec = variables[:3]
    out = dst.new_empty(dst.shape)
    out_vec = dst.new_empty(len(dst), vec.size(1), 2 * dst.size(1))
    if len(dst) > 0:
        in_ptr, in_edges, *_, order = lists
        with torch.cuda.device_of(src):
            _launch('forward', len(dst), {
                **_shared(variables), 'source': edge_index[0].contiguous(),
                'in_ptr': in_ptr, 'in_edges': in_edges, 'order': order,
                'out': out, 'out_vec': out_vec, 'eps': eps,
                'MEAN': aggr == 'mean'})
    return out, out_vec


def backward(grads: Sequence[Tensor], variables: Sequence[Any],
             edge_index: Tensor, lists: Sequence[Any], aggr: str, eps: float,
             needs: Sequence[bool]) -> list[Tensor | None]:
    r"""Returns the gradients of the variables that need them."""
    needs = reference.shared_needs(needs)
    src, dst, vec, edge, unit = variables[:5]
    source, target = edge_index.contiguous()
    in_ptr, in_edges, out_ptr, out_edges, _, _, order = lists

    def fresh(*shape: int, need: bool = True) -> Tensor | None:
        return src.new_empty(shape, dtype=torch.float32) if need else None

    d_src, d_dst, d_vec, d_edge, d_unit = (
        fresh(*x.shape, need=need) for x, need in zip(
            (src, dst, vec, edge, unit), needs, strict=False))
    shared = _shared(variables)
    shared |= {'lines': fresh(len(edge), 5, need=needs[0]),
               'grad': grads[0].contiguous(),
               'grad_vec': grads[1].contiguous()}
    sums = _sums(src, dst, shared)
    with torch.cuda.device_of(src):
        if len(dst) > 0:
            _launch('backward', len(sums), {
                **shared, 'order': order, 'source': source, 'in_ptr': in_ptr,
                'in_edges': in_edges, 'd_dst': d_dst, 'd_edge': d_edge,
                'd_unit': d_unit, 'sums': sums, 'targets': len(dst),
                'eps': eps, 'MEAN': aggr == 'mean',
                'SPACE': sums.size(1) - 2, 'BY_DOT': _is_by_dot(shared)})
        if d_src is not None and len(src) > 0:
            _launch('backward_sources', len(src), {
                **shared, 'target': target, 'out_ptr': out_ptr,
                'out_edges': out_edges, 'd_src': d_src, 'd_vec': d_vec,
                # It is of targets, and serves as many sources, too.
                'order': order if len(src) == len(dst) else None})
    total = sums.sum(0)[:, :src.size(1)]
    found = [d_src, d_dst, d_vec, d_edge, d_unit,
             total[:edge.size(1)].t().contiguous(),
             *(x.clone() for x in total[-2:])]
    return [x.to(like.dtype) if need and x is not None and like is not None
            else None
            for x, like, need in zip(found, variables, needs, strict=True)]


def _shared(variables: Sequence[Any]) -> dict[str, Any]:
    r"""What all kernels take."""
    src, dst, vec, edge, unit, weight, scale, shift = dense(variables)
    return {'src': src, 'dst': dst, 'vec': vec, 'edge': edge, 'unit': unit,
            'weight': weight, 'scale': scale, 'shift': shift,
            'AXES': vec.size(1), **sizes_of(src, dst, edge)}


def _is_by_dot(args: dict[str, Any]) -> bool:
    return args['DIMS'] > FEW_DIMS


def _sums(src: Tensor, dst: Tensor, args: dict[str, Any]) -> Tensor:
    r"""Returns rows for each program's sums for weights: more programs where
    they have fewer threads.
    """
    width = args['WIDTH']
    programs = PROGRAMS * max(min(WIDEST // width, 4), 1)
    space = power_of_two(args['DIMS'])
    return src.new_zeros(min(len(dst), programs), space + 2, width,
                         dtype=torch.float32)


def _launch(name: str, programs: int, args: dict[str, Any]) -> None:
    from torch_geometric_erwin.ops.equivariant_messages import triton_kernels
    kernel: Callable[..., Any] = getattr(triton_kernels, name)[programs, ]
    edges, warps = _tile(name, args)
    kernel(**args, EDGES=edges, num_stages=2, num_warps=warps)


def _tile(name: str, args: dict[str, Any]) -> tuple[int, int]:
    r"""Returns how many edges a program takes at a time, and its warps: one,
    in which sums need no shared memory, unless two edges are too much for it.
    """
    width, most = args['WIDTH'], 32 * NUMBERS[name]
    edges = min(max(most // width, 2), 16)
    if name == 'backward' and _is_by_dot(args):
        edges = 16
    return edges, min(max(edges * width // most, 1), 16)
