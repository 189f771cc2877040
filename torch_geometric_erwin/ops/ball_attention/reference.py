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
        score = q @ k.transpose(-1, -2) * q.size(-1)**-0.5
        if slope is not None:
            far = pairwise(pos, balls, squared=bias == 'squared')
            far = far.to(score.dtype).unsqueeze(1)
            score = score + slope.to(score.dtype).view(-1, 1, 1) * far
        visible = balls.visible()
        if visible is not None:
            score = score.masked_fill(~visible[:, None, None], -torch.inf)
        alpha = F.dropout(score.softmax(-1), dropout)
        out = (alpha @ v).transpose(1, 2)
    return balls.join(out).to(query.dtype)


def pairwise(pos: Tensor, balls: Balls, squared: bool) -> Tensor:
    r"""Returns the distances between the slots of each ball, shape
    :math:`(S / \text{size}, \text{size}, \text{size})`.
    """
    pos = balls.split(pos)
    box = None if balls.box is None else balls.box[:, None, None]
    return distance(pos.unsqueeze(2), pos.unsqueeze(1), box, squared)
