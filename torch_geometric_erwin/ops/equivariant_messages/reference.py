r"""Messages edge by edge, in PyTorch's operations."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_geometric_erwin.ops.message_passing.reference import (
    activate,
    pull_back,
    wide,
)


def arguments(src: Tensor, dst: Tensor, vec: Tensor,
              unit: Tensor) -> Tensor:
    r"""Returns what activations are of, but for the edge's own numbers, given
    those of each edge's ends.
    """
    return src + dst + (unit.unsqueeze(1) @ vec).squeeze(1)


def with_vectors(message: Tensor, vec: Tensor, unit: Tensor) -> Tensor:
    r"""Returns messages, times directions, times vectors of their sources,
    shape :math:`(E, C + 2 D C)`.
    """
    message, unit = message.unsqueeze(1), unit.unsqueeze(2)
    both = torch.cat([message * unit, message * vec], dim=2)
    return torch.cat([message.squeeze(1), both.flatten(1)], dim=1)


def take_apart(out: Tensor, channels: int,
               dim: int) -> tuple[Tensor, Tensor]:
    r"""Returns scalars :math:`(N, C)` and vectors :math:`(N, D, 2 C)` of what
    :meth:`with_vectors` puts together.
    """
    return out[:, :channels], out[:, channels:].unflatten(1, (dim, -1))


def equivariant_messages(
    src: Tensor, dst: Tensor, vec: Tensor, edge: Tensor, unit: Tensor,
    weight: Tensor, scale: Tensor, shift: Tensor | None, edge_index: Tensor,
    aggr: str, eps: float,
) -> tuple[Tensor, Tensor]:
    r"""See :func:`torch_geometric_erwin.ops.equivariant_messages`."""
    source, target = edge_index
    near = vec.index_select(0, source)
    out = arguments(src.index_select(0, source), dst.index_select(0, target),
                    near, unit) + F.linear(edge, weight)
    out = F.layer_norm(F.gelu(out), out.shape[-1:], scale, shift, eps)
    out = with_vectors(out, near, unit)
    total = out.new_zeros(dst.size(0), out.size(1)).index_add(0, target, out)
    if aggr == 'mean':
        one = torch.ones_like(target, dtype=out.dtype)
        count = one.new_zeros(dst.size(0)).index_add(0, target, one)
        total = total / count.clamp(min=1).unsqueeze(1)
    return take_apart(total, src.size(1), unit.size(1))


def forward(variables: Sequence[Any], edge_index: Tensor, lists: Any,
            aggr: str, eps: float) -> tuple[Tensor, Tensor]:
    r"""Takes the place of kernels."""
    src, dst, vec, edge, unit, weight, scale, shift = map(wide, variables)
    out, out_vec = (
        x.to(variables[0].dtype).clone(memory_format=torch.contiguous_format)
        for x in equivariant_messages(src, dst, vec, edge, unit, weight,
                                      scale, shift, edge_index, aggr, eps))
    return out, out_vec


def backward(grads: Sequence[Tensor], variables: Sequence[Any],
             edge_index: Tensor, lists: Any, aggr: str, eps: float,
             needs: Sequence[bool]) -> list[Tensor | None]:
    r"""Takes the place of kernels: the gradients without autograd, which does
    not work within an operator.
    """
    src, dst, vec, edge, unit, weight, scale, shift = map(wide, variables)
    source, target = edge_index
    near, each = vec[source], unit.unsqueeze(2)
    x = arguments(src[source], dst[target], near, unit) + edge @ weight.t()
    y, slope = activate(x, eps)
    message = y * scale if shift is None else y * scale + shift
    grad, grad_vec = pull_of_edges(grads, target, aggr)
    to_unit, to_vec = grad_vec.chunk(2, 2)
    pull = grad + (each * to_unit + near * to_vec).sum(1)
    d = pull_back(pull * scale, y, slope)
    message, wide_d = message.unsqueeze(1), d.unsqueeze(1)
    found = [
        torch.zeros_like(src).index_add_(0, source, d),
        torch.zeros_like(dst).index_add_(0, target, d),
        torch.zeros_like(vec).index_add_(0, source, wide_d * each
                                         + message * to_vec),
        d @ weight, (message * to_unit + wide_d * near).sum(2), d.t() @ edge,
        (pull * y).sum(0), pull.sum(0)]
    needs = shared_needs(needs)
    return [x.to(like.dtype) if need and like is not None else None
            for x, like, need in zip(found, variables, needs, strict=True)]


def pull_of_edges(grads: Sequence[Tensor], target: Tensor,
                  aggr: str) -> list[Tensor]:
    r"""Returns gradients of what each edge adds to its target's results."""
    found = [wide(grad)[target] for grad in grads]
    if aggr == 'sum':
        return found
    count = target.bincount(minlength=grads[0].size(0))[target]
    return [x / count.view(-1, *[1] * (x.dim() - 1)) for x in found]


def shared_needs(needs: Sequence[bool]) -> list[bool]:
    r"""Gradients of scalars and vectors of sources are found together."""
    both = needs[0] or needs[2]
    return [both, needs[1], both, *needs[3:]]
