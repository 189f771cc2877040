r"""The C++ block as a torch operator, opaque to the compiler."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torch_geometric_erwin.ops.ball_attention import Balls
from torch_geometric_erwin.ops.erwin_block import cpu, reference
from torch_geometric_erwin.ops.erwin_block.weights import BlockWeights
from torch_geometric_erwin.ops.transformed import (
    by_formula,
    is_bare,
    needs_formula,
)

VARIABLES = 3 + len(BlockWeights._fields)  # features, offsets, positions
_WEIGHTS = ', '.join(f'Tensor{"?" if name == "slope" else ""} {name}'
                     for name in BlockWeights._fields)
_INPUTS = f'Tensor x, Tensor offset, Tensor p, {_WEIGHTS}'
_SIZES = 'int ball_size, int heads, float[] eps, str bias'

torch.library.define(
    'torch_geometric_erwin::erwin_block',
    f'({_INPUTS}, Tensor index, Tensor inverse, Tensor? mask, Tensor? box, '
    f'{_SIZES}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)',
)
torch.library.define(
    'torch_geometric_erwin::erwin_block_backward',
    f'(Tensor grad, {_INPUTS}, Tensor index, Tensor? mask, Tensor? box, '
    # No lists of tensors, which PyTorch would not batch:
    'Tensor rows, Tensor sums, Tensor lse, Tensor half, '
    f'{_SIZES}, bool needs_offset, bool needs_pos) -> '
    f'({", ".join(["Tensor"] * VARIABLES)})',
)


def erwin_block(
    x: Tensor,
    offset: Tensor,
    pos: Tensor,
    w: BlockWeights,
    balls: Balls,
    heads: int,
    eps: tuple[float | None, float | None],
    bias: str | None,
) -> Tensor:
    r"""See :func:`torch_geometric_erwin.ops.erwin_block`."""
    least = torch.finfo(x.dtype).eps
    numbers = [least if number is None else number for number in eps]
    args = (x, offset, pos, *w, balls.index, balls.inverse, balls.mask,
            balls.box, balls.size, heads, numbers, bias or '')
    if is_bare(x, offset, pos, *w):
        return _forward(*args)[0]
    if torch.compiler.is_compiling():
        return _operator(*args)[0]
    return _Block.apply(*args)[0]


def _operator(*args: Any) -> tuple[Tensor, ...]:
    return torch.ops.torch_geometric_erwin.erwin_block(*args)


def _forward(x: Tensor, offset: Tensor, pos: Tensor,
             *args: Any) -> tuple[Tensor, ...]:
    *weights, index, _, mask, box, ball_size, heads, eps, bias = args
    return cpu.forward(x, offset, pos, BlockWeights(*weights), index, mask,
                       box, ball_size, heads, eps, bias)


torch.library.impl('torch_geometric_erwin::erwin_block', 'CPU', _forward)


@torch.library.register_fake('torch_geometric_erwin::erwin_block')
def _fake_forward(x: Tensor, offset: Tensor, pos: Tensor,
                  *args: Any) -> tuple[Tensor, ...]:
    heads = args[-3]
    n, width = x.size(0), x.size(1) // heads
    return (x.new_empty(x.shape), x.new_empty(n, 3 * x.size(1)),
            x.new_empty(n, heads, width), x.new_empty(n, heads),
            x.new_empty(x.shape))


@torch.library.impl('torch_geometric_erwin::erwin_block_backward', 'CPU')
def _backward(grad: Tensor, x: Tensor, offset: Tensor, pos: Tensor,
              *args: Any) -> tuple[Tensor, ...]:
    count = len(BlockWeights._fields)
    index, mask, box, *saved = args[count:-6]
    d_x, d_offset, d_pos, weights = cpu.backward(
        grad, x, offset, pos, BlockWeights(*args[:count]), index, mask, box,
        saved, *args[-6:])
    return tuple(x.new_empty(0) if found is None else found
                 for found in (d_x, d_offset, d_pos, *weights))


@torch.library.register_fake('torch_geometric_erwin::erwin_block_backward')
def _fake_backward(grad: Tensor, x: Tensor, offset: Tensor, pos: Tensor,
                   *args: Any) -> tuple[Tensor, ...]:
    *weights, slope = args[:len(BlockWeights._fields)]
    needs_offset, needs_pos = args[-2:]
    return (x.new_empty(x.shape),
            offset.new_empty(offset.shape if needs_offset else 0),
            pos.new_empty(pos.shape if needs_pos else 0),
            *(w.new_empty(w.shape) for w in weights),
            x.new_empty(0 if slope is None else slope.shape))


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.ball_size, ctx.heads, ctx.eps, ctx.bias = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None,
                   *_: Tensor | None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    variables, rest = tensors[:VARIABLES], tensors[VARIABLES:]
    index, inverse, mask, box, *saved = rest
    if grad is None:
        return (None, ) * (VARIABLES + 8)
    needs = list(ctx.needs_input_grad[:VARIABLES])
    needs[2] &= bool(ctx.bias)
    # A graph of the gradients is wanted, or many gradients at once:
    if torch.is_grad_enabled() or needs_formula(grad):
        balls = Balls(ctx.ball_size, index, inverse, mask, box)
        found = by_formula(
            lambda x, offset, pos, *weights: reference.erwin_block(
                x, offset, pos, BlockWeights(*weights), balls, ctx.heads,
                ctx.eps, ctx.bias or None),
            variables, needs, grad)
    else:
        found = torch.ops.torch_geometric_erwin.erwin_block_backward(
            grad, *variables, index, mask, box, *saved, ctx.ball_size,
            ctx.heads, ctx.eps, ctx.bias, *needs[1:3])
    return *(x if need else None
             for x, need in zip(found, needs, strict=True)), *(None, ) * 8


class _Block(Function):
    r"""What is registered below, for `torch.func`, which does not transform
    operators.
    """
    forward = staticmethod(_operator)
    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_differentiate)


torch.library.register_autograd('torch_geometric_erwin::erwin_block',
                                _differentiate, setup_context=_setup_context)
