r"""Attention as its formula says, and its gradients, in balls.

Shapes: queries, keys and values :math:`(B, H, m, E)`, positions :math:`(B, m,
D)`, slopes :math:`(H)`, what is visible :math:`(B, m)`, cells :math:`(B, D)`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention.balls import Balls, no_autocast
from torch_geometric_erwin.ops.distance import at_least_float, distance
from torch_geometric_erwin.ops.periodic import nearest_image


def ball_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pos: Tensor,
    slope: Tensor | None,
    balls: Balls,
    bias: str | None,
    dropout: float = 0.,
) -> Tensor:
    r"""See :func:`torch_geometric_erwin.ops.ball_attention`, with all scores
    in memory.
    """
    with no_autocast(query):
        q, k, v = (heads_first(balls.split(x)) for x in (query, key, value))
        alpha = weights(q, k, balls.split(pos), slope, balls.visible(),
                        balls.box, bias)
        if dropout > 0.:
            alpha = F.dropout(alpha, dropout)
        out = alpha @ v
        return balls.join(out.transpose(1, 2)).to(query.dtype)


def heads_first(x: Tensor) -> Tensor:
    r"""Half precision is computed in float32."""
    return at_least_float(x).transpose(1, 2)


def weights(
    q: Tensor,
    k: Tensor,
    pos: Tensor,
    slope: Tensor | None,
    visible: Tensor | None,
    box: Tensor | None,
    bias: str | None,
) -> Tensor:
    r"""Computes the attention weights, shape :math:`(B, H, m, m)`."""
    extra = q.new_zeros(())
    if visible is not None:
        extra = q.new_zeros(visible.shape).masked_fill(~visible, -torch.inf)
        extra = extra[:, None, None]
    if slope is not None:
        far = pairwise(pos, box, bias).to(q.dtype).unsqueeze(1)
        extra = torch.addcmul(extra, slope.to(q.dtype).view(-1, 1, 1), far)
    score = q * q.size(-1)**-0.5 @ k.transpose(-1, -2) + extra
    return score.softmax(-1)


def pairwise(pos: Tensor, box: Tensor | None, bias: str | None) -> Tensor:
    r"""Computes distances or their squares, shape :math:`(B, m, m)`."""
    if box is not None:
        box = box[:, None, None]
    return distance(pos.unsqueeze(2), pos.unsqueeze(1), box,
                    bias == 'squared')


def gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: Tensor,
    slope: Tensor | None,
    visible: Tensor | None,
    box: Tensor | None,
    bias: str | None,
    grad: Tensor,
    moving: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    r"""Computes the gradients with respect to queries, keys, values,
    positions (if these are :obj:`moving`) and slopes, given that of the
    output. Differentiable again.
    """
    alpha = weights(q, k, pos, slope, visible, box, bias)
    change = grad @ v.transpose(-1, -2)
    change = alpha * (change - (alpha * change).sum(-1, keepdim=True))
    scale = q.size(-1)**-0.5
    dq = change @ k * scale
    dk = change.transpose(-1, -2) @ q * scale
    dv = alpha.transpose(-1, -2) @ grad
    if slope is None:
        return dq, dk, dv, None, None
    far = pairwise(pos, box, bias).to(q.dtype)
    change = change.reshape(*change.shape[:2], -1)
    dslope = (change @ far.reshape(len(far), -1, 1)).sum((0, 2))
    if not moving:
        return dq, dk, dv, None, dslope
    pull = (slope.to(q.dtype) @ change).view_as(far)
    return dq, dk, dv, _pull(pull, far, pos, box, bias), dslope


def _pull(pull: Tensor, far: Tensor, pos: Tensor, box: Tensor | None,
          bias: str | None) -> Tensor:
    r"""Takes the gradient of distances to that of positions."""
    if bias == 'squared':
        pull = 2 * pull
    else:
        apart = far > 0
        pull = torch.where(apart, pull / torch.where(apart, far, 1.), 0.)
    pull = pull + pull.transpose(1, 2)
    pos = at_least_float(pos)
    if box is not None and box.dim() == 3:
        offset = nearest_image(pos.unsqueeze(2) - pos.unsqueeze(1),
                               box[:, None, None].to(pos.dtype))
        return (pull.unsqueeze(-1) * offset).sum(2)
    parts = []
    for i, x in enumerate(pos.unbind(-1)):
        edge = None if box is None else box[:, i, None, None].to(x.dtype)
        offset = nearest_image(x.unsqueeze(2) - x.unsqueeze(1), edge)
        parts.append((pull * offset).sum(2))
    return torch.stack(parts, dim=-1)
