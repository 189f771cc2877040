r"""The kernels as one torch operator, opaque to the compiler."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torch_geometric_erwin.ops.equivariant_messages import (
    cpu,
    reference,
    triton,
)
from torch_geometric_erwin.ops.message_passing import EdgeLists
from torch_geometric_erwin.ops.transformed import (
    by_formula,
    is_bare,
    needs_formula,
)

VARIABLES = len(cpu.VARIABLES)
_INPUTS = ('Tensor src, Tensor dst, Tensor vec, Tensor edge, Tensor unit, '
           'Tensor weight, Tensor scale, Tensor? shift, Tensor edge_index, '
           'Tensor in_ptr, Tensor in_edges, Tensor out_ptr, Tensor out, '
           'Tensor in_rows, Tensor parts, Tensor? order, str aggr, float eps')

torch.library.define('torch_geometric_erwin::equivariant_messages',
                     f'({_INPUTS}) -> (Tensor, Tensor)')
torch.library.define(
    'torch_geometric_erwin::equivariant_messages_backward',
    f'(Tensor grad, Tensor grad_vec, {_INPUTS}, bool[] needs) -> '
    f'({", ".join(["Tensor"] * VARIABLES)})')


def serves(*variables: Tensor | None) -> bool:
    r"""Whether there are kernels for these."""
    rows = [x for x in variables[:5] if x is not None]
    src, _, vec, edge, _ = rows
    return (cpu.serves(src) or triton.serves(src, vec.size(1), edge.size(1))
            ) and len({x.dtype for x in rows}) == 1


def _kernels(variables: Sequence[Any], aggr: str) -> Any:
    r"""Returns the module that computes this."""
    if variables[0].device.type == 'cpu':
        return cpu
    return triton if triton.do_work(variables, aggr) else reference


def equivariant_messages(
    variables: tuple[Tensor | None, ...], edge_index: Tensor,
    lists: EdgeLists, aggr: str, eps: float,
) -> tuple[Tensor, Tensor]:
    r"""See :func:`torch_geometric_erwin.ops.equivariant_messages`."""
    args = *variables, edge_index, *lists, aggr, eps
    if is_bare(*variables):
        return _forward(*args)
    if torch.compiler.is_compiling():
        return _operator(*args)
    return _Messages.apply(*args)


def _operator(*args: Any) -> tuple[Tensor, Tensor]:
    return torch.ops.torch_geometric_erwin.equivariant_messages(*args)


def _forward(*args: Any) -> tuple[Tensor, Tensor]:
    variables, (edge_index, *lists) = args[:VARIABLES], args[VARIABLES:-2]
    kernels = _kernels(variables, args[-2])
    return kernels.forward(variables, edge_index, lists, *args[-2:])


torch.library.impl('torch_geometric_erwin::equivariant_messages',
                   ('CPU', 'CUDA'), _forward)


@torch.library.register_fake('torch_geometric_erwin::equivariant_messages')
def _fake_forward(src: Tensor, dst: Tensor, vec: Tensor,
                  *args: Any) -> tuple[Tensor, Tensor]:
    n, channels = dst.shape
    return dst.new_empty(n, channels), dst.new_empty(n, vec.size(1),
                                                     2 * channels)


@torch.library.impl('torch_geometric_erwin::equivariant_messages_backward',
                    ('CPU', 'CUDA'))
def _backward(grad: Tensor, grad_vec: Tensor,
              *args: Any) -> tuple[Tensor, ...]:
    variables, (edge_index, *lists) = args[:VARIABLES], args[VARIABLES:-3]
    found = _kernels(variables, args[-3]).backward(
        (grad, grad_vec), variables, edge_index, lists, *args[-3:])
    return tuple(grad.new_empty(0) if x is None else x for x in found)


@torch.library.register_fake(
    'torch_geometric_erwin::equivariant_messages_backward')
def _fake_backward(grad: Tensor, grad_vec: Tensor,
                   *args: Any) -> tuple[Tensor, ...]:
    needs = reference.shared_needs(args[-1])
    return tuple(
        grad.new_empty(0) if x is None or not need else x.new_empty(x.shape)
        for x, need in zip(args[:VARIABLES], needs, strict=True))


def _setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
    *tensors, ctx.aggr, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    variables, (edge_index, *lists) = tensors[:VARIABLES], tensors[VARIABLES:]
    needs = list(ctx.needs_input_grad[:VARIABLES])
    # A graph of the gradients is wanted, or many gradients at once:
    if torch.is_grad_enabled() or needs_formula(*grads):
        found = by_formula(
            lambda src, dst, vec, edge, unit, weight, scale, shift:
            reference.equivariant_messages(
                src, dst, vec, edge, unit, weight, scale, shift, edge_index,
                ctx.aggr, ctx.eps),
            variables, needs, grads)
    else:
        found = torch.ops.torch_geometric_erwin.equivariant_messages_backward(
            *grads, *variables, edge_index, *lists, ctx.aggr, ctx.eps, needs)
    return *(x if need else None
             for x, need in zip(found, needs, strict=True)), *(None, ) * 10


class _Messages(Function):
    r"""What is registered below, for `torch.func`, which does not transform
    operators.
    """
    forward = staticmethod(_operator)
    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_differentiate)


torch.library.register_autograd(
    'torch_geometric_erwin::equivariant_messages', _differentiate,
    setup_context=_setup_context)
