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
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor,
                mask: Tensor | None, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.scale = scale
        return _fused(q, k, v, mask, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, mask = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        if not twice:
            inputs = [x.detach().requires_grad_(needed)
                      for x, needed in zip(inputs, ctx.needs_input_grad[:3],
                                         strict=True)]
        q, k, v = inputs
        run = _plain if twice else _fused
        with torch.enable_grad():
            out = run(q, k, v, mask, ctx.scale)
        needed = [x for x in inputs if x.requires_grad]
        grads = iter(torch.autograd.grad(out, needed, grad,
                                         create_graph=twice))
        return *(next(grads) if x.requires_grad else None
                 for x in inputs), None, None


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
           scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask,
                                          scale=scale)


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
           scale: float) -> Tensor:
    score = q @ k.transpose(-1, -2) * scale
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf)
    return score.softmax(-1) @ v
