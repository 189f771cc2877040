r"""A block on scalars and vectors as its formula says."""

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import Balls, ball_attention
from torch_geometric_erwin.ops.dense import reference as dense
from torch_geometric_erwin.ops.equivariant_block.weights import BlockWeights
from torch_geometric_erwin.ops.vectors import norms, unit_rms


def equivariant_block(
    x: Tensor,
    vec: Tensor,
    far: Tensor,
    offset: Tensor,
    pos: Tensor,
    w: BlockWeights,
    balls: Balls,
    eps: tuple[float | None, float | None],
    bias: str | None,
) -> tuple[Tensor, Tensor]:
    r"""See :func:`torch_geometric_erwin.ops.equivariant_block`."""
    qkv = dense.norm_linear(x, w.scale1, eps[0], far, w.pos, w.pos_bias,
                            w.qkv, w.qkv_bias)
    rows = assemble(qkv, F.linear(unit_rms(vec), w.vec), offset, w.pos_vec)
    query, key, value = rows.unbind(2)
    out = ball_attention(query, key, value, pos, w.slope, balls, bias=bias)
    out, turn = relative(out, offset, w.pos_vec.size(2))
    out = torch.cat([out, norms(turn)], dim=2)
    x = dense.linear(out.flatten(1), w.out, w.out_bias, x)
    vec = vec + F.linear(turn.flatten(2), w.vec_out)
    hidden = F.linear(unit_rms(vec), w.hidden)
    x = dense.linear(norms(hidden), w.norms, None, x)
    x = dense.swiglu(x, w.scale2, eps[1], w.mlp_in, w.mlp_in_bias, w.mlp_out,
                     w.mlp_out_bias)
    gate = F.linear(x, w.gate, w.gate_bias).unsqueeze(1)
    return x, vec + F.linear(gate * hidden, w.hidden_out)


def assemble(qkv: Tensor, vec: Tensor, offset: Tensor,
             pos_vec: Tensor) -> Tensor:
    r"""Returns queries, keys and values of all heads, shape :math:`(N, H, 3,
    E)`: scalars :math:`(N, 3 H (s + u))` and, behind them, vectors
    :math:`(N, D, 3 H u)`.
    """
    heads, _, number = pos_vec.shape
    qkv = qkv.unflatten(1, (heads, 3, -1))
    vec = vec.unflatten(2, (heads, 3, -1))
    weight = torch.cat([pos_vec.to(qkv.dtype).expand(len(qkv), -1, -1, -1),
                        qkv[:, :, 2:, -number:]], dim=2)
    vec = torch.addcmul(vec, offset[:, :, None, None, None],
                        weight.unsqueeze(1))
    return torch.cat([qkv, vec.permute(0, 2, 3, 1, 4).flatten(3)], dim=3)


def relative(out: Tensor, offset: Tensor,
             number: int) -> tuple[Tensor, Tensor]:
    r"""Takes the heads' sums :math:`(N, H, E)` to scalars :math:`(N, H, s)`
    and vectors :math:`(N, D, H, u)`, these relative to the point that
    attends.
    """
    dim = offset.size(1)
    sizes = [out.size(2) - (dim + 1) * number, number, dim * number]
    x, weight, vec = out.split(sizes, dim=2)
    vec = vec.unflatten(2, (dim, number)).transpose(1, 2)
    return x, vec - offset[:, :, None, None] * weight.unsqueeze(1)
