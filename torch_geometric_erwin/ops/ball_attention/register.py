r"""The kernels as one torch operator, opaque to the compiler."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torch_geometric_erwin.ops.ball_attention import chunked, cpu, triton
from torch_geometric_erwin.ops.ball_attention.balls import Balls
from torch_geometric_erwin.ops.transformed import is_bare, needs_formula

torch.library.define(
    'torch_geometric_erwin::ball_attention',
    '(Tensor query, Tensor key, Tensor value, Tensor pos, Tensor? slope, '
    'Tensor index, Tensor inverse, Tensor? mask, Tensor? box, int ball_size, '
    'str bias) -> (Tensor, Tensor)',
)
torch.library.define(
    'torch_geometric_erwin::ball_attention_backward',
    '(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor pos, '
    'Tensor? slope, Tensor index, Tensor? mask, Tensor? box, Tensor out, '
    'Tensor lse, int ball_size, str bias, bool[] needs) -> '
    '(Tensor, Tensor, Tensor, Tensor, Tensor)',
)


def ball_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pos: Tensor,
    slope: Tensor | None,
    balls: Balls,
    bias: str | None,
) -> Tensor:
    r"""See :func:`torch_geometric_erwin.ops.ball_attention`."""
    args = (query, key, value, pos, slope, balls.index, balls.inverse,
            balls.mask, balls.box, balls.size, bias or '')
    if is_bare(query, key, value, pos, slope):
        return _forward(*args)[0]
    if torch.compiler.is_compiling():
        return _operator(*args)[0]
    return _Attention.apply(*args)[0]


def _kernels(query: Tensor, pos: Tensor, box: Tensor | None, ball_size: int,
             bias: str) -> Any:
    r"""Returns the module that computes this."""
    if query.device.type == 'cpu':
        return cpu
    if triton.do_work(query, pos, box, ball_size, bias):
        return triton
    return chunked


def _operator(*args: Any) -> tuple[Tensor, Tensor]:
    return torch.ops.torch_geometric_erwin.ball_attention(*args)


def _forward(query: Tensor, key: Tensor, value: Tensor, pos: Tensor,
             slope: Tensor | None, index: Tensor, inverse: Tensor,
             mask: Tensor | None, box: Tensor | None, ball_size: int,
             bias: str) -> tuple[Tensor, Tensor]:
    return _kernels(query, pos, box, ball_size, bias).forward(
        [query, key, value], pos, slope, index, mask, box, ball_size, bias)


torch.library.impl('torch_geometric_erwin::ball_attention', ('CPU', 'CUDA'),
                   _forward)


@torch.library.register_fake('torch_geometric_erwin::ball_attention')
def _fake_forward(query: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return (query.new_empty(query.shape),
            query.new_empty(query.shape[:2], dtype=torch.float32))


@torch.library.impl('torch_geometric_erwin::ball_attention_backward',
                    ('CPU', 'CUDA'))
def _backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor,
              pos: Tensor, slope: Tensor | None, index: Tensor,
              mask: Tensor | None, box: Tensor | None, out: Tensor,
              lse: Tensor, ball_size: int, bias: str,
              needs: list[bool]) -> tuple[Tensor, ...]:
    return tuple(_kernels(query, pos, box, ball_size, bias).backward(
        [query, key, value, out, grad], pos, slope, index, mask, box, lse,
        ball_size, bias, needs))


@torch.library.register_fake('torch_geometric_erwin::ball_attention_backward')
def _fake_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor,
                   pos: Tensor, slope: Tensor | None, *args: Any
                   ) -> tuple[Tensor, ...]:
    needs = args[-1]
    like = [query, key, value, pos, query.new_empty(0) if slope is None
            else slope]
    return tuple(x.new_empty(x.shape if need else 0)
                 for x, need in zip(like, needs, strict=True))


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.ball_size, ctx.bias = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None,
                   _: Tensor | None) -> tuple[Tensor | None, ...]:
    *variables, index, inverse, mask, box, out, lse = ctx.saved_tensors
    if grad is None:
        return (None, ) * 11
    needs = list(ctx.needs_input_grad[:5])
    needs[3] &= bool(ctx.bias)
    # A graph of the gradients is wanted, or many gradients at once:
    if torch.is_grad_enabled() or needs_formula(grad):
        balls = Balls(ctx.ball_size, index, inverse, mask, box)
        found = chunked.gradients(variables, balls, [balls],
                                  ctx.bias or None, grad, needs[3])
    else:
        found = torch.ops.torch_geometric_erwin.ball_attention_backward(
            grad, *variables, index, mask, box, out, lse, ctx.ball_size,
            ctx.bias, needs)
    return *(x if need else None
             for x, need in zip(found, needs, strict=True)), *(None, ) * 6


class _Attention(Function):
    r"""What is registered below, for `torch.func`, which does not transform
    operators.
    """
    forward = staticmethod(_operator)
    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_differentiate)


torch.library.register_autograd('torch_geometric_erwin::ball_attention',
                                _differentiate, setup_context=_setup_context)
