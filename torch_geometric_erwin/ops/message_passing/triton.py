r"""Messages by Triton kernels (`triton_kernels`) on GPUs."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torch_geometric_erwin.ops.message_passing import reference, trials
from torch_geometric_erwin.ops.native import has_triton, works

STORAGES = torch.float32, torch.bfloat16, torch.float16
WIDEST = 512  # channels
MOST_DIMS = 128
EDGES = 16  # at a time
PROGRAMS = 1024  # that make sums for weights; these depend on it


def serves(src: Tensor, dims: int) -> bool:
    r"""Whether the kernels are for such rows."""
    return (src.device.type == 'cuda' and src.dtype in STORAGES
            and src.size(1) <= WIDEST and dims <= MOST_DIMS and has_triton())


def do_work(variables: Sequence[Any], aggr: str) -> bool:
    r"""Whether they can be compiled for this, and then do what they should."""
    src, _, edge, weight, _, shift = variables
    case = (src.device, src.dtype, weight.dtype, src.size(1), edge.size(1),
            shift is not None, aggr)
    return works('message passing', lambda: trial(*case), *case)


def trial(device: torch.device, dtype: torch.dtype, weight_dtype: torch.dtype,
          channels: int, dims: int, has_shift: bool, aggr: str) -> bool:
    r"""Whether sums and gradients are what they should be."""
    edge_index, lists = trials.make_edges(device)
    numbers, wide = (partial(trials.numbers, device, x)
                     for x in (dtype, weight_dtype))
    grad = numbers(trials.TARGETS, channels)
    variables = [
        numbers(trials.SOURCES, channels), grad.clone(),
        numbers(trials.EDGES, dims), wide(channels, dims), wide(channels),
        wide(channels) if has_shift else None]

    def run(forward: Any, backward: Any, grad: Tensor,
            *some: Any) -> list[Any]:
        rest = edge_index, lists, aggr, 1e-5
        needs = [x is not None for x in some]
        return [forward(some, *rest), *backward(grad, some, *rest, needs)]

    return trials.agree(run, (forward, backward),
                        (reference.forward, reference.backward),
                        [grad, *variables])


def forward(variables: Sequence[Any], edge_index: Tensor,
            lists: Sequence[Any], aggr: str, eps: float) -> Tensor:
    src, dst, edge, weight, scale, shift = dense(variables)
    out = dst.new_empty(dst.shape)
    if dst.size(0) > 0:
        in_ptr, in_edges, *_, order = lists
        with torch.cuda.device_of(src):
            _launch('forward', dst.size(0), {
                'src': src, 'dst': dst, 'edge': edge, 'weight': weight,
                'scale': scale, 'shift': shift,
                'source': edge_index[0].contiguous(), 'in_ptr': in_ptr,
                'in_edges': in_edges, 'order': order, 'out': out, 'eps': eps,
                'MEAN': aggr == 'mean', **sizes_of(src, dst, edge)})
    return out


def backward(grad: Tensor, variables: Sequence[Any], edge_index: Tensor,
             lists: Sequence[Any], aggr: str, eps: float,
             needs: Sequence[bool]) -> list[Tensor | None]:
    r"""Returns the gradients of the variables that need them."""
    src, dst, edge, weight, scale, _ = dense(variables)
    source, target = edge_index.contiguous()
    in_ptr, in_edges, out_ptr, out_edges, _, _, order = lists
    sizes = sizes_of(src, dst, edge)
    dims, width, channels = sizes['DIMS'], sizes['WIDTH'], sizes['CHANNELS']
    space = max(power_of_two(dims), 16)

    def fresh(*shape: int, need: bool = True) -> Tensor | None:
        return src.new_empty(shape, dtype=torch.float32) if need else None

    d_src, d_dst, d_edge = (fresh(*x.shape, need=need) for x, need in
                            zip((src, dst, edge), needs, strict=False))
    pull, lines = fresh(*dst.shape), fresh(len(edge), 3, need=needs[0])
    programs = min(dst.size(0), PROGRAMS)
    sums = src.new_zeros(programs, space + 2, width, dtype=torch.float32)
    shared = {'src': src, 'dst': dst, 'edge': edge, 'weight': weight,
              'order': order, 'pull': pull, 'lines': lines, **sizes}
    with torch.cuda.device_of(src):
        if programs > 0:
            _launch('backward', programs, {
                **shared, 'scale': scale, 'source': source, 'in_ptr': in_ptr,
                'in_edges': in_edges, 'grad': grad.contiguous(),
                'd_dst': d_dst, 'd_edge': d_edge, 'sums': sums,
                'targets': dst.size(0), 'eps': eps, 'MEAN': aggr == 'mean',
                'SPACE': space})
        if d_src is not None and src.size(0) > 0:
            _launch('backward_sources', src.size(0), {
                **shared, 'target': target, 'out_ptr': out_ptr,
                'out_edges': out_edges, 'd_src': d_src,
                # It is of targets, and serves as many sources, too.
                'order': order if len(src) == len(dst) else None})
    total = sums.sum(0)[:, :channels]
    found = [d_src, d_dst, d_edge, total[:dims].t(), *total[space:]]
    found[3:] = [x.contiguous().clone() for x in found[3:] if x is not None]
    return [x.to(like.dtype) if need and x is not None else None
            for x, like, need in zip(found, variables, needs, strict=True)]


def sizes_of(src: Tensor, dst: Tensor, edge: Tensor) -> dict[str, Any]:
    r"""What kernels are told of shapes."""
    return {'src_ld': src.stride(0), 'dst_ld': dst.stride(0),
            'DIMS': edge.size(1), 'CHANNELS': src.size(1),
            'WIDTH': max(power_of_two(src.size(1)), 16)}


def _launch(name: str, programs: int, args: dict[str, Any]) -> None:
    from torch_geometric_erwin.ops.message_passing import triton_kernels
    kernel: Callable[..., Any] = getattr(triton_kernels, name)[programs, ]
    width = args['WIDTH']
    kernel(**args, EDGES=EDGES, num_stages=2,
           num_warps=1 if width <= 32 else 2 if width <= 64 else 4
           if width <= 128 else 8)


def dense(variables: Sequence[Any]) -> list[Any]:
    r"""The kernels take rows of features that are any distance apart."""
    return [x if x is None or (i < 2 and x.stride(-1) == 1)
            else x.contiguous() for i, x in enumerate(variables)]


def power_of_two(x: int) -> int:
    r"""The first that is not below a number."""
    return 1 << (x - 1).bit_length()
