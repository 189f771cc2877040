r"""Messages edge by edge, in PyTorch's operations."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
