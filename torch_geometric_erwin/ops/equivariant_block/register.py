r"""The block as a torch operator, opaque to the compiler."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torch_geometric_erwin.ops.ball_attention import Balls
from torch_geometric_erwin.ops.equivariant_block import cpu, reference
from torch_geometric_erwin.ops.equivariant_block.weights import BlockWeights
from torch_geometric_erwin.ops.transformed import (
    by_formula,
    is_bare,
    needs_formula,
)

ROWS = 'x', 'vec', 'far', 'offset', 'p'
VARIABLES = len(ROWS) + len(BlockWeights._fields)
SAVED = len(cpu.Saved._fields)
_INPUTS = ', '.join([*(f'Tensor {name}' for name in ROWS),
                     *(f'Tensor{"?" if name == "slope" else ""} {name}_'
                       for name in BlockWeights._fields)])
_SIZES = 'int ball_size, float[] eps, str bias'
_KEPT = ', '.join(f'Tensor {name}' for name in cpu.Saved._fields)

torch.library.define(
    'torch_geometric_erwin::equivariant_block',
    f'({_INPUTS}, Tensor index, Tensor inverse, Tensor? mask, Tensor? box, '
    f'{_SIZES}) -> ({", ".join(["Tensor"] * (2 + SAVED))})',
)
torch.library.define(
    'torch_geometric_erwin::equivariant_block_backward',
    f'(Tensor grad, Tensor grad_vec, {_INPUTS}, Tensor index, Tensor? mask, '
    f'Tensor? box, Tensor result, {_KEPT}, {_SIZES}, bool needs_pos) -> '
    f'({", ".join(["Tensor"] * VARIABLES)})',
)


def equivariant_block(
    x: Tensor,
    vec: Tensor,
    far: Tensor,
    offset: Tensor,
    pos: Tensor,
    w: BlockWeights,
    balls: Balls,
    eps: tuple[float | None, float | None],
    bias: str | None,
) -> tuple[Tensor, Tensor]:
    r"""See :func:`torch_geometric_erwin.ops.equivariant_block`."""
    least = torch.finfo(x.dtype).eps
    numbers = [least if number is None else number for number in eps]
    args = (x, vec, far, offset, pos, *w, balls.index, balls.inverse,
            balls.mask, balls.box, balls.size, numbers, bias or '')
    if is_bare(x, vec, far, offset, pos, *w):
        run: Any = _forward
    else:
        run = _operator if torch.compiler.is_compiling() else _Block.apply
    x, vec, *_ = run(*args)
    return x, vec


def _operator(*args: Any) -> tuple[Tensor, ...]:
    return torch.ops.torch_geometric_erwin.equivariant_block(*args)


def _forward(*args: Any) -> tuple[Tensor, ...]:
    x, vec, far, offset, pos, *rest = args
    *weights, index, _, mask, box, ball_size, eps, bias = rest
    x, vec, saved = cpu.forward(
        x, vec, far, offset, pos, BlockWeights._make(weights), index, mask,
        box, ball_size, eps, bias)
    return x, vec, *saved


torch.library.impl('torch_geometric_erwin::equivariant_block', 'CPU', _forward)


@torch.library.register_fake('torch_geometric_erwin::equivariant_block')
def _fake_forward(x: Tensor, vec: Tensor, far: Tensor, offset: Tensor,
                  pos: Tensor, *args: Any) -> tuple[Tensor, ...]:
    w = BlockWeights._make(args[:len(BlockWeights._fields)])
    (n, dim, _), (heads, _, number) = vec.shape, w.pos_vec.shape
    width = w.qkv.size(0) // (3 * heads) + dim * number
    shapes = [x.shape, vec.shape, (n, heads, 3, width), (n, heads, width),
              (n, heads), x.shape]
    return tuple(x.new_empty(shape) for shape in shapes)


@torch.library.impl('torch_geometric_erwin::equivariant_block_backward',
                    'CPU')
def _backward(grad: Tensor, grad_vec: Tensor,
              *args: Any) -> tuple[Tensor, ...]:
    x, vec, far, offset, pos, *weights = args[:VARIABLES]
    index, mask, box, result, *rest = args[VARIABLES:]
    saved, (ball_size, eps, bias, needs_pos) = rest[:SAVED], rest[SAVED:]
    *found, d_weights = cpu.backward(
        grad, grad_vec, x, vec, far, offset, pos, BlockWeights._make(weights),
        index, mask, box, result, cpu.Saved._make(saved), ball_size, eps,
        bias, needs_pos)
    return tuple(grad.new_empty(0) if x is None else x.contiguous()
                 for x in (*found, *d_weights))


@torch.library.register_fake(
    'torch_geometric_erwin::equivariant_block_backward')
def _fake_backward(grad: Tensor, grad_vec: Tensor,
                   *args: Any) -> tuple[Tensor, ...]:
    variables, needs_pos = list(args[:VARIABLES]), args[-1]
    if not needs_pos:
        variables[len(ROWS) - 1] = None
    return tuple(grad.new_empty(0) if x is None else x.new_empty(x.shape)
                 for x in variables)


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.ball_size, ctx.eps, ctx.bias = inputs
    ctx.save_for_backward(*tensors, output[0], *output[2:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, grad_vec: Tensor | None,
                   *_: Tensor | None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    variables, rest = tensors[:VARIABLES], tensors[VARIABLES:]
    index, inverse, mask, box, result, *saved = rest
    if grad is None and grad_vec is None:
        return (None, ) * (VARIABLES + 7)
    grad = torch.zeros_like(variables[0]) if grad is None else grad
    grad_vec = torch.zeros_like(variables[1]) if grad_vec is None else (
        grad_vec)
    needs = list(ctx.needs_input_grad[:VARIABLES])
    needs[len(ROWS) - 1] &= bool(ctx.bias)
    # A graph of the gradients is wanted, or many gradients at once:
    if torch.is_grad_enabled() or needs_formula(grad, grad_vec):
        balls = Balls(ctx.ball_size, index, inverse, mask, box)
        found = by_formula(
            lambda x, vec, far, offset, pos, *weights:
            reference.equivariant_block(
                x, vec, far, offset, pos, BlockWeights._make(weights), balls,
                ctx.eps, ctx.bias or None),
            variables, needs, (grad, grad_vec))
    else:
        found = torch.ops.torch_geometric_erwin.equivariant_block_backward(
            grad.contiguous(), grad_vec.contiguous(), *variables, index, mask,
            box, result, *saved, ctx.ball_size, ctx.eps, ctx.bias,
            needs[len(ROWS) - 1])
    return *(x if need else None
             for x, need in zip(found, needs, strict=True)), *(None, ) * 7


class _Block(Function):
    r"""What is registered below, for `torch.func`, which does not transform
    operators.
    """
    forward = staticmethod(_operator)
    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_differentiate)


torch.library.register_autograd('torch_geometric_erwin::equivariant_block',
                                _differentiate, setup_context=_setup_context)
