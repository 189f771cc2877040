r"""A block as its formula says."""

from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import Balls, ball_attention
from torch_geometric_erwin.ops.dense import reference as dense
from torch_geometric_erwin.ops.erwin_block.weights import BlockWeights


def erwin_block(
    x: Tensor,
    offset: Tensor,
    pos: Tensor,
    w: BlockWeights,
    balls: Balls,
    heads: int,
    eps: tuple[float | None, float | None],
    bias: str | None,
) -> Tensor:
    r"""See :func:`torch_geometric_erwin.ops.erwin_block`."""
    qkv = dense.norm_linear(x, w.scale1, eps[0], offset, w.pos, w.pos_bias,
                            w.qkv, w.qkv_bias)
    q, k, v = qkv.unflatten(1, (3, heads, -1)).unbind(1)
    out = ball_attention(q, k, v, pos, w.slope, balls, bias=bias)
    x = dense.linear(out.flatten(1), w.out, w.out_bias, x)
    return dense.swiglu(x, w.scale2, eps[1], w.mlp_in, w.mlp_in_bias,
                        w.mlp_out, w.mlp_out_bias)
