r"""PyTorch's fused attention, differentiable more than once."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
           scale: float) -> Tensor:
    r"""Computes attention of queries, keys and values of one width.

    Args:
        q: Queries, shape :math:`(*, L, E)`.
        k: Keys, shape :math:`(*, L, E)`.
        v: Values, shape :math:`(*, L, E)`.
        mask: Which keys can be seen, broadcastable to :math:`(*, L, L)`.
        scale: What to multiply the products of queries and keys by.
    """
    if torch.compiler.is_compiling():  # has no second derivatives anyway
        return _fused(q, k, v, mask, scale)
    return _Attend.apply(q, k, v, mask, scale)


class _Attend(Function):
    r"""PyTorch's kernels have no second derivative. This one's first is
    made of differentiable operations if a graph of it is asked for.
    """
    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
                scale: float) -> Tensor:
        return _fused(q, k, v, mask, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.scale = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask = ctx.saved_tensors
        run = _gradients if torch.is_grad_enabled() else _fused_gradients
        return *run(q, k, v, mask, ctx.scale, grad), None, None


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
           scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask,
                                          scale=scale)


def _fused_gradients(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
                     scale: float, grad: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        out = _fused(q, k, v, mask, scale)
    return torch.autograd.grad(out, (q, k, v), grad)


def _gradients(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
               scale: float, grad: Tensor) -> tuple[Tensor, ...]:
    score = q @ k.transpose(-1, -2) * scale
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf)
    alpha = score.softmax(-1)
    change = grad @ v.transpose(-1, -2)
    change = alpha * (change - (alpha * change).sum(-1, keepdim=True)) * scale
    return (change @ k, change.transpose(-1, -2) @ q,
            alpha.transpose(-1, -2) @ grad)
