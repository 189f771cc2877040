r"""Messages edge by edge, in PyTorch's operations."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def message(src: Tensor, dst: Tensor, edge: Tensor, weight: Tensor,
            scale: Tensor, shift: Tensor | None, eps: float) -> Tensor:
    r"""Returns the message of each edge from what its source, its target and
    the edge itself tell.
    """
    out = F.gelu(src + dst + F.linear(edge, weight))
    return F.layer_norm(out, out.shape[-1:], scale, shift, eps)


def message_passing(src: Tensor, dst: Tensor, edge: Tensor, weight: Tensor,
                    scale: Tensor, shift: Tensor | None, edge_index: Tensor,
                    aggr: str, eps: float) -> Tensor:
    r"""See :func:`torch_geometric_erwin.ops.message_passing`."""
    source, target = edge_index
    out = message(src[source], dst[target], edge, weight, scale, shift, eps)
    total = torch.zeros_like(dst, dtype=out.dtype).index_add(0, target, out)
    if aggr == 'sum':
        return total
    one = torch.ones_like(target, dtype=out.dtype)
    count = one.new_zeros(dst.size(0)).index_add(0, target, one)
    return total / count.clamp(min=1).unsqueeze(1)


def forward(variables: Sequence[Any], edge_index: Tensor, lists: Any,
            aggr: str, eps: float) -> Tensor:
    r"""Takes the place of kernels."""
    src, dst, edge, weight, scale, shift = map(wide, variables)
    out = message_passing(src, dst, edge, weight, scale, shift, edge_index,
                          aggr, eps)
    return out.to(variables[0].dtype)


def backward(grad: Tensor, variables: Sequence[Any], edge_index: Tensor,
             lists: Any, aggr: str, eps: float, needs: Sequence[bool],
             ) -> list[Tensor | None]:
    r"""Takes the place of kernels: the gradients without autograd, which does
    not work within an operator.
    """
    src, dst, edge, weight, scale = map(wide, variables[:5])
    (source, target), grad = edge_index, wide(grad)
    count = grad.new_zeros(dst.size(0)).index_add_(
        0, target, torch.ones_like(target, dtype=grad.dtype)).unsqueeze(1)
    if aggr == 'mean':
        grad = grad / count.clamp(min=1)
    x = src[source] + dst[target] + edge @ weight.t()
    unit, slope = activate(x, eps)
    d = pull_back((grad * scale)[target], unit, slope)
    found = [torch.zeros_like(src).index_add_(0, source, d),
             torch.zeros_like(dst).index_add_(0, target, d), d @ weight,
             d.t() @ edge, (grad[target] * unit).sum(0), (grad * count).sum(0)]
    return [x.to(like.dtype) if need and like is not None else None
            for x, like, need in zip(found, variables, needs, strict=True)]


def activate(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    r"""Returns activations as the layer norm makes them, before it scales and
    shifts them, and what their gradients are multiplied by.
    """
    below = 0.5 * torch.special.erfc(-x * 0.5**0.5)
    slope = below + x * (2 * math.pi)**-0.5 * (-x * x / 2).exp()
    g = x * below - (x * below).mean(1, keepdim=True)
    inverse = (g.square().mean(1, keepdim=True) + eps).rsqrt()
    return g * inverse, slope * inverse


def pull_back(pull: Tensor, unit: Tensor, slope: Tensor) -> Tensor:
    r"""Returns gradients of arguments, given those of what :meth:`activate`
    returns, and that.
    """
    along = (pull * unit).mean(1, keepdim=True)
    return slope * (pull - pull.mean(1, keepdim=True) - unit * along)


def wide(x: Any) -> Any:
    r"""Kernels compute in float32, if not in float64."""
    return x if x is None or x.dtype == torch.float64 else x.float()
