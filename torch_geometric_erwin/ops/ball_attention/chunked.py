r"""Attention a few balls at a time, so that scores stay in the cache and
memory linear in the number of points.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torch_geometric_erwin.ops.ball_attention import reference
from torch_geometric_erwin.ops.ball_attention.balls import Balls, no_autocast

# How many scores are computed at a time.
SCORES = {'cpu': 2**19}
MOST_SCORES = 2**26


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
    return _Attention.apply(query, key, value, pos, slope, balls, bias)


def forward(rows: Sequence[Tensor], pos: Tensor, slope: Tensor | None,
            index: Tensor, mask: Tensor | None, box: Tensor | None,
            ball_size: int, bias: str) -> tuple[Tensor, Tensor]:
    r"""Takes the place of kernels; :meth:`backward` needs no logarithms."""
    query, key, value = rows
    balls = _balls(query, index, mask, box, ball_size)
    out = _Attention.forward(query, key, value, pos, slope, balls,
                             bias or None)
    return out, query.new_zeros(query.shape[:2], dtype=torch.float32)


def backward(rows: Sequence[Tensor], pos: Tensor, slope: Tensor | None,
             index: Tensor, mask: Tensor | None, box: Tensor | None,
             lse: Tensor, ball_size: int, bias: str,
             needs: Sequence[bool]) -> list[Tensor]:
    r"""Takes the place of kernels."""
    *tensors, _, grad = rows
    balls = _balls(grad, index, mask, box, ball_size)
    parts = [some for _, some in _chunks(balls, grad.size(1))]
    found = gradients([*tensors, pos, slope], balls, parts, bias or None,
                      grad, needs[3])
    return [grad.new_empty(0) if x is None or not need else x
            for x, need in zip(found, needs, strict=True)]


def _balls(like: Tensor, index: Tensor, mask: Tensor | None,
           box: Tensor | None, ball_size: int) -> Balls:
    slots = torch.arange(index.numel(), device=index.device)
    if mask is not None:
        index_of, slots = index[mask], slots[mask]
    else:
        index_of = index
    inverse = index.new_empty(len(like)).scatter_(0, index_of, slots)
    return Balls(ball_size, index, inverse, mask, box)


class _Attention(Function):
    r"""Computes scores twice instead of keeping them."""
    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, pos: Tensor,
                slope: Tensor | None, balls: Balls,
                bias: str | None) -> Tensor:
        out = torch.empty(balls.index.numel() // balls.size, balls.size,
                          *value.shape[1:], dtype=value.dtype,
                          device=value.device)
        with no_autocast(query):
            for part, some in _chunks(balls, query.size(1)):
                q, k, v = (reference.heads_first(some.split(x))
                           for x in (query, key, value))
                alpha = reference.weights(q, k, some.split(pos), slope,
                                          some.visible(), some.box, bias)
                out[part] = (alpha @ v).transpose(1, 2)
        return balls.join(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.balls, ctx.bias = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, balls = ctx.saved_tensors, ctx.balls
        heads, moving = tensors[0].size(1), ctx.needs_input_grad[3]
        if torch.is_grad_enabled():  # a graph is wanted: all at once
            parts = [balls]
        else:
            parts = [some for _, some in _chunks(balls, heads)]
        return *gradients(tensors, balls, parts, ctx.bias, grad,
                          moving), None, None


def gradients(
    tensors: Sequence[Any],
    balls: Balls,
    parts: Sequence[Balls],
    bias: str | None,
    grad: Tensor,
    moving: bool,
) -> list[Tensor | None]:
    r"""Returns the gradients of queries, keys, values, positions (if these
    are :obj:`moving`) and slopes, by way of these parts of the balls.
    Differentiable again.
    """
    with no_autocast(grad):
        found = [_gradients(tensors, some, bias, grad, moving)
                 for some in parts]
    if not found:
        return [None if x is None else torch.zeros_like(x) for x in tensors]
    *rows, slopes = zip(*found, strict=True)
    out = [None if x[0] is None else balls.join(torch.cat(x)).to(t.dtype)
           for x, t in zip(rows, tensors[:4], strict=True)]
    slope = tensors[4]
    if slope is not None:
        slope = torch.stack(slopes).sum(0).to(slope.dtype)
    return [*out, slope]


def _gradients(tensors: Sequence[Any], balls: Balls, bias: str | None,
               grad: Tensor, moving: bool) -> list[Tensor | None]:
    r"""Returns the gradients by balls; virtual slots have none."""
    query, key, value, pos, slope = tensors
    q, k, v, g = (reference.heads_first(balls.split(x))
                  for x in (query, key, value, grad))
    if balls.mask is not None:
        g = g * balls.mask.view(-1, 1, balls.size, 1)
    *rows, dpos, dslope = reference.gradients(
        q, k, v, balls.split(pos), slope, balls.visible(), balls.box, bias, g,
        moving)
    return [*(x.transpose(1, 2) for x in rows), dpos, dslope]


def _chunks(balls: Balls, heads: int) -> Iterator[tuple[slice, Balls]]:
    most = SCORES.get(balls.index.device.type, MOST_SCORES)
    step = max(most // (heads * balls.size**2), 1)
    for start in range(0, balls.index.numel() // balls.size, step):
        part = slice(start, start + step)
        slots = slice(start * balls.size, (start + step) * balls.size)
        yield part, Balls(
            balls.size, balls.index[slots], balls.inverse,
            None if balls.mask is None else balls.mask[slots],
            None if balls.box is None else balls.box[part])
