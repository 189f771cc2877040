r"""A block by the C++ kernels, with little to remember for its gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import cpu as attention
from torch_geometric_erwin.ops.dense import cpu as dense
from torch_geometric_erwin.ops.erwin_block.weights import BlockWeights
from torch_geometric_erwin.ops.native import fresh


def serves(x: Tensor, w: BlockWeights) -> bool:
    r"""Whether the kernels take such features and weights."""
    *learned, slope = w
    return (all(v is not None and dense.serves(v) for v in (x, *learned))
            and (slope is None or slope.dtype == torch.float32)
            and attention.serves(x, x, x)
            and not torch.is_autocast_enabled('cpu'))


def forward(
    x: Tensor,
    offset: Tensor,
    pos: Tensor,
    w: BlockWeights,
    index: Tensor,
    mask: Tensor | None,
    box: Tensor | None,
    ball_size: int,
    heads: int,
    eps: Sequence[float],
    bias: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Returns the result, and what :meth:`backward` needs: queries, keys
    and values, the heads' sums, the logarithms of the softmax' denominators,
    and the features half way.
    """
    qkv = dense.norm_linear(x, w.scale1, eps[0], offset, w.pos, w.pos_bias,
                            w.qkv, w.qkv_bias)
    out, lse = attention.forward(_heads(qkv, heads), pos, w.slope, index, mask,
                                 box, ball_size, bias)
    half = dense.linear(out.flatten(1), w.out, w.out_bias, x)
    x = dense.swiglu(half, w.scale2, eps[1], w.mlp_in, w.mlp_in_bias,
                     w.mlp_out, w.mlp_out_bias)
    return x, qkv, out, lse, half


def backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    pos: Tensor,
    w: BlockWeights,
    index: Tensor,
    mask: Tensor | None,
    box: Tensor | None,
    saved: Sequence[Tensor],
    ball_size: int,
    heads: int,
    eps: Sequence[float],
    bias: str,
    needs_offset: bool,
    needs_pos: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, BlockWeights]:
    r"""Returns the gradients of features, relative positions, positions and
    weights.
    """
    qkv, out, lse, half = saved
    grad, *mlp = dense.swiglu_backward(grad, half, w.scale2, eps[1], w.mlp_in,
                                       w.mlp_in_bias, w.mlp_out)
    d_out, *last = dense.linear_backward(grad, out.flatten(1), w.out)
    assert d_out is not None
    d_qkv = fresh(qkv, *qkv.shape)
    _, _, _, d_pos, d_slope = attention.backward(
        [*_heads(qkv, heads), out, d_out.view_as(out)], pos, w.slope, index,
        mask, box, lse, ball_size, bias,
        [True, True, True, needs_pos, bool(bias)], _heads(d_qkv, heads))
    d_x, d_scale, d_offset, *first = dense.norm_linear_backward(
        d_qkv, x, w.scale1, eps[0], offset, w.pos, w.pos_bias, w.qkv, grad,
        needs_offset)
    return (d_x, d_offset if needs_offset else None,
            d_pos if needs_pos else None,
            BlockWeights._make([d_scale, *first, *last, *mlp,
                                d_slope if bias else None]))


def _heads(qkv: Tensor, heads: int) -> list[Tensor]:
    return list(qkv.unflatten(1, (3, heads, -1)).unbind(1))
