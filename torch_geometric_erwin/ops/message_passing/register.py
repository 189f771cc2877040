r"""The kernels as one torch operator, opaque to the compiler."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torch_geometric_erwin.ops.message_passing import (
    cpu,
    reference,
    triton,
)
from torch_geometric_erwin.ops.message_passing.edge_lists import EdgeLists
from torch_geometric_erwin.ops.transformed import (
    by_formula,
    is_bare,
    needs_formula,
)

VARIABLES = 6
_INPUTS = ('Tensor src, Tensor dst, Tensor edge, Tensor weight, Tensor scale, '
           'Tensor? shift, Tensor edge_index, Tensor in_ptr, Tensor in_edges, '
           'Tensor out_ptr, Tensor out, Tensor in_rows, Tensor parts, '
           'Tensor? order, str aggr, float eps')

torch.library.define('torch_geometric_erwin::message_passing',
                     f'({_INPUTS}) -> Tensor')
torch.library.define(
    'torch_geometric_erwin::message_passing_backward',
    f'(Tensor grad, {_INPUTS}, bool[] needs) -> '
    f'({", ".join(["Tensor"] * VARIABLES)})')


def serves(*variables: Tensor | None) -> bool:
    r"""Whether there are kernels for these."""
    src, edge = variables[0], variables[2]
    assert src is not None and edge is not None
    return (cpu.serves(src) or triton.serves(src, edge.size(1))) and len(
        {x.dtype for x in variables[:3] if x is not None}) == 1


def _kernels(variables: Sequence[Any], aggr: str) -> Any:
    r"""Returns the module that computes this."""
    if variables[0].device.type == 'cpu':
        return cpu
    return triton if triton.do_work(variables, aggr) else reference


def message_passing(variables: tuple[Tensor | None, ...], edge_index: Tensor,
                    lists: EdgeLists, aggr: str, eps: float) -> Tensor:
    r"""See :func:`torch_geometric_erwin.ops.message_passing`."""
    args = *variables, edge_index, *lists, aggr, eps
    if is_bare(*variables):
        return _forward(*args)
    if torch.compiler.is_compiling():
        return _operator(*args)
    return _Messages.apply(*args)


def _operator(*args: Any) -> Tensor:
    return torch.ops.torch_geometric_erwin.message_passing(*args)


def _forward(*args: Any) -> Tensor:
    *variables, edge_index, a, b, c, d, e, f, order, aggr, eps = args
    lists = EdgeLists(a, b, c, d, e, f, order)
    kernels = _kernels(variables, aggr)
    return kernels.forward(variables, edge_index, lists, aggr, eps)


torch.library.impl('torch_geometric_erwin::message_passing', ('CPU', 'CUDA'),
                   _forward)


@torch.library.register_fake('torch_geometric_erwin::message_passing')
def _fake_forward(src: Tensor, dst: Tensor, *args: Any) -> Tensor:
    return dst.new_empty(dst.shape)


@torch.library.impl('torch_geometric_erwin::message_passing_backward',
                    ('CPU', 'CUDA'))
def _backward(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
    *variables, edge_index, a, b, c, d, e, f, order, aggr, eps, needs = args
    lists = EdgeLists(a, b, c, d, e, f, order)
    found = _kernels(variables, aggr).backward(
        grad, variables, edge_index, lists, aggr, eps, needs)
    return tuple(grad.new_empty(0) if x is None else x for x in found)


@torch.library.register_fake('torch_geometric_erwin::message_passing_backward')
def _fake_backward(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return tuple(
        grad.new_empty(0) if x is None or not need else x.new_empty(x.shape)
        for x, need in zip(args[:VARIABLES], args[-1], strict=True))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.aggr, ctx.eps = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None,
                   ) -> tuple[Tensor | None, ...]:
    *variables, edge_index, a, b, c, d, e, f, order = ctx.saved_tensors
    if grad is None:
        return (None, ) * (VARIABLES + 10)
    needs = list(ctx.needs_input_grad[:VARIABLES])
    # A graph of the gradients is wanted, or many gradients at once:
    if torch.is_grad_enabled() or needs_formula(grad):
        found = by_formula(
            lambda src, dst, edge, weight, scale, shift:
            reference.message_passing(src, dst, edge, weight, scale, shift,
                                      edge_index, ctx.aggr, ctx.eps),
            variables, needs, grad)
    else:
        found = torch.ops.torch_geometric_erwin.message_passing_backward(
            grad, *variables, edge_index, a, b, c, d, e, f, order, ctx.aggr,
            ctx.eps, needs)
    return *(x if need else None
             for x, need in zip(found, needs, strict=True)), *(None, ) * 10


class _Messages(Function):
    r"""What is registered below, for `torch.func`, which does not transform
    operators.
    """
    forward = staticmethod(_operator)
    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_differentiate)


torch.library.register_autograd('torch_geometric_erwin::message_passing',
                                _differentiate, setup_context=_setup_context)
