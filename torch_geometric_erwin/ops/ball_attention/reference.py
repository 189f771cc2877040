r"""Attention as its formula says, with all scores in memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention.balls import Balls, no_autocast
from torch_geometric_erwin.ops.distance import at_least_float, distance


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
    r"""See :func:`torch_geometric_erwin.ops.ball_attention`. Half precision
    is computed in float32.
    """
    q, k, v = (at_least_float(balls.split(x)).transpose(1, 2)
               for x in (query, key, value))
    with no_autocast(query):
        extra = hidden(balls, q)
        if slope is not None:
            far = pairwise(pos, balls, squared=bias == 'squared')
            far = far.to(q.dtype).unsqueeze(1)
            extra = torch.addcmul(extra, slope.to(q.dtype).view(-1, 1, 1), far)
        score = q * q.size(-1)**-0.5 @ k.transpose(-1, -2) + extra
        alpha = F.dropout(score.softmax(-1), dropout)
        out = (alpha @ v).transpose(1, 2)
    return balls.join(out).to(query.dtype)


def hidden(balls: Balls, like: Tensor) -> Tensor:
    r"""Returns what to add to scores for nobody to see virtual slots,
    broadcastable to them.
    """
    visible = balls.visible()
    if visible is None:
        return like.new_zeros(())
    zeros = like.new_zeros(visible.shape)
    return zeros.masked_fill(~visible, -torch.inf)[:, None, None]


def pairwise(pos: Tensor, balls: Balls, squared: bool) -> Tensor:
    r"""Returns the distances between the slots of each ball, shape
    :math:`(S / \text{size}, \text{size}, \text{size})`.
    """
    pos = balls.split(pos)
    box = None if balls.box is None else balls.box[:, None, None]
    return distance(pos.unsqueeze(2), pos.unsqueeze(1), box, squared)
