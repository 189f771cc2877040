r"""Attention by PyTorch's fused kernels, which take no learned bias.

Squared distances need none. In :math:`\| \mathbf{p}_i - \mathbf{p}_j \|^2 =
\| \mathbf{p}_i \|^2 - 2 \mathbf{p}_i^{\top} \mathbf{p}_j + \| \mathbf{p}_j
\|^2` no softmax over :math:`j` sees the first term, and the others are a
product of columns that can be appended to queries and keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention.balls import Balls, no_autocast
from torch_geometric_erwin.ops.ball_attention.fused import attend
from torch_geometric_erwin.ops.distance import at_least_float

HIDDEN = -1e30


def serves(query: Tensor, balls: Balls, bias: str | None) -> bool:
    r"""Whether the result is the formula's. The appended columns need more
    precision than half, and know no nearest images.
    """
    if bias == 'squared':
        return balls.box is None and query.dtype in (torch.float32,
                                                     torch.float64)
    return bias is None


def ball_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pos: Tensor,
    slope: Tensor | None,
    balls: Balls,
) -> Tensor:
    r"""See :func:`torch_geometric_erwin.ops.ball_attention`; a slope is that
    of squared distances.
    """
    q, k, v = (balls.split(x).transpose(1, 2) for x in (query, key, value))
    width, scale = q.size(-1), q.size(-1)**-0.5
    visible = balls.visible()
    with no_autocast(query):
        if slope is None:
            mask = None if visible is None else visible[:, None, None]
            out = attend(q, k, v, mask, scale)
        else:
            q, k = _append(q, k, balls.split(pos), slope, visible, scale)
            v = F.pad(v, (0, q.size(-1) - width))
            out = attend(q, k, v, None, scale)[..., :width]
    return balls.join(out.transpose(1, 2))


def _append(q: Tensor, k: Tensor, pos: Tensor, slope: Tensor,
            visible: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    r"""Appends columns whose product, times the scale, is the bias."""
    pos = _centered(at_least_float(pos), visible)
    slope = slope.to(pos.dtype).view(-1, 1)
    square = slope * pos.square().sum(-1).unsqueeze(1)
    if visible is not None:
        square = square.masked_fill(~visible.unsqueeze(1), HIDDEN)
    square = square.unsqueeze(-1) / scale
    pos = pos.unsqueeze(1)
    turned = pos * slope.unsqueeze(-1) * (-2 / scale)
    return (_cat(q, turned, torch.ones_like(q[..., :1])),
            _cat(k, pos, square))


def _centered(pos: Tensor, visible: Tensor | None) -> Tensor:
    r"""Makes numbers small, and zero where nothing is visible. As those of
    visible slots sum to zero, one of these has a score that is not negative,
    far above what is hidden.
    """
    if visible is None:
        return pos - pos.detach().mean(1, keepdim=True)
    some = visible.unsqueeze(-1).to(pos.dtype)
    center = (pos.detach() * some).sum(1, keepdim=True)
    return (pos - center / some.sum(1, keepdim=True)) * some


def _cat(x: Tensor, *columns: Tensor) -> Tensor:
    size = x.shape[:-1]
    return torch.cat(
        [x, *(c.to(x.dtype).expand(*size, c.size(-1)) for c in columns)], -1)
