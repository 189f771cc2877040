r"""A block on scalars and vectors by the C++ kernels of dense layers, of
attention, and of what is done to vectors point by point.

Vectors are normalized after linear maps, which are narrower: :math:`\mathbf{U}
(r \vec{\mathbf{v}}) = r \, \mathbf{U} \vec{\mathbf{v}}`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import cpu as attention
from torch_geometric_erwin.ops.dense import cpu as dense
from torch_geometric_erwin.ops.equivariant_block import points
from torch_geometric_erwin.ops.equivariant_block.weights import BlockWeights
from torch_geometric_erwin.ops.native import fresh


class Saved(NamedTuple):
    r"""What the forward pass keeps, in the order of its making.

    Args:
        unit: One over the root mean square of vectors, shape :math:`(N)`.
        lifted: Vectors of queries, keys and values, without positions.
        rows: Queries, keys and values.
        out: The heads' sums.
        lse: The logarithms of the softmax' denominators.
        turn: Vectors relative to points, shape :math:`(N, D, H u)`.
        sums: Scalars and lengths of the above.
        half_vec: Vectors half way.
        half_unit: As :obj:`unit`, half way.
        hidden: Hidden vectors.
        lengths: Of these.
        half: Scalars half way, with lengths.
        gate: What multiplies hidden vectors.
    """
    unit: Tensor
    lifted: Tensor
    rows: Tensor
    out: Tensor
    lse: Tensor
    turn: Tensor
    sums: Tensor
    half_vec: Tensor
    half_unit: Tensor
    hidden: Tensor
    lengths: Tensor
    half: Tensor
    gate: Tensor


def serves(x: Tensor, vec: Tensor, w: BlockWeights) -> bool:
    r"""Whether the kernels take such features and weights."""
    *learned, slope = w
    return (all(v is not None and dense.serves(v) for v in (x, vec, *learned))
            and (slope is None or slope.dtype == torch.float32)
            and attention.serves(x, x, x)
            and not torch.is_autocast_enabled('cpu'))


def forward(
    x: Tensor, vec: Tensor, far: Tensor, offset: Tensor, pos: Tensor,
    w: BlockWeights, index: Tensor, mask: Tensor | None, box: Tensor | None,
    ball_size: int, eps: Sequence[float], bias: str,
) -> tuple[Tensor, Tensor, Saved]:
    r"""Returns the results, and what :meth:`backward` needs."""
    qkv = dense.norm_linear(x, w.scale1, eps[0], far, w.pos, w.pos_bias,
                            w.qkv, w.qkv_bias)
    lifted = vec @ w.vec.t()
    rows, unit = points.assemble(qkv, lifted, vec, offset, w.pos_vec)
    out, lse = attention.forward(rows.unbind(2), pos, w.slope, index, mask,
                                 box, ball_size, bias)
    sums, turn = points.relative(out, offset, w.pos_vec)
    x = dense.linear(sums, w.out, w.out_bias, x)
    half_vec = _add_product(vec, turn, w.vec_out)
    hidden = half_vec @ w.hidden.t()
    lengths, half_unit = points.hide(hidden, half_vec)
    half = dense.linear(lengths, w.norms, None, x)
    x = dense.swiglu(half, w.scale2, eps[1], w.mlp_in, w.mlp_in_bias,
                     w.mlp_out, w.mlp_out_bias)
    gate = dense.linear(x, w.gate, w.gate_bias)
    vec = _add_product(half_vec, points.gate(gate, hidden), w.hidden_out)
    return x, vec, Saved(unit, lifted, rows, out, lse, turn, sums, half_vec,
                         half_unit, hidden, lengths, half, gate)


def backward(
    grad: Tensor, grad_vec: Tensor, x: Tensor, vec: Tensor, far: Tensor,
    offset: Tensor, pos: Tensor, w: BlockWeights, index: Tensor,
    mask: Tensor | None, box: Tensor | None, result: Tensor, saved: Saved,
    ball_size: int, eps: Sequence[float], bias: str, needs_pos: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, BlockWeights]:
    r"""Returns the gradients of features, vectors, distances, offsets,
    positions and weights.
    """
    d_half, d_half_vec, mlp = _mlp_backward(grad, grad_vec, w, result, saved,
                                            eps)
    d_sums, d_out, d_out_bias = dense.linear_backward(d_half, saved.sums,
                                                      w.out)
    assert d_sums is not None
    d_rows, d_offset, d_vec_out, d_pos, d_slope = _attention_backward(
        d_sums, d_half_vec, offset, pos, w, index, mask, box, saved,
        ball_size, bias, needs_pos)

    d_qkv, d_lifted, along, d_pos_vec = points.assemble_backward(
        d_rows, saved.rows, saved.lifted, vec, saved.unit, offset, w.pos_vec,
        d_offset)
    d_vec, d_lin = _product_backward(d_lifted, along, vec, w.vec, d_half_vec)
    d_x, d_scale, d_far, d_pos_w, d_pos_b, d_w, d_b = (
        dense.norm_linear_backward(d_qkv, x, w.scale1, eps[0], far,
                                   w.pos, w.pos_bias, w.qkv, d_half, True))
    assert d_far is not None
    return d_x, d_vec, d_far, d_offset, d_pos, BlockWeights._make(
        [d_scale, d_pos_w, d_pos_b, d_w, d_b, d_lin, d_pos_vec, d_out,
         d_out_bias, d_vec_out, *mlp, d_slope])


def _mlp_backward(
    grad: Tensor, grad_vec: Tensor, w: BlockWeights, result: Tensor,
    saved: Saved, eps: Sequence[float],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    r"""Returns the gradients of features and vectors half way, and of the
    feed-forward network's weights.
    """
    hidden = saved.hidden
    d_product, d_hidden_out = _linear_backward(
        grad_vec, points.gate(saved.gate, hidden), w.hidden_out)
    d_gate = points.gate_backward(d_product, saved.gate, hidden)
    d_result, d_gate_w, d_gate_b = dense.linear_backward(d_gate, result,
                                                         w.gate)
    assert d_result is not None
    d_half, *mlp = dense.swiglu_backward(
        d_result.add_(grad), saved.half, w.scale2, eps[1], w.mlp_in,
        w.mlp_in_bias, w.mlp_out)
    d_lengths, d_norms, _ = dense.linear_backward(d_half, saved.lengths,
                                                  w.norms)
    assert d_lengths is not None
    along = points.hide_backward(d_product, d_lengths, hidden, saved.lengths,
                                 saved.half_vec, saved.half_unit)
    d_half_vec, d_hidden_w = _product_backward(
        d_product, along, saved.half_vec, w.hidden, grad_vec)
    return d_half, d_half_vec, [d_hidden_w, d_norms, *mlp, d_gate_w, d_gate_b,
                                d_hidden_out]


def _attention_backward(
    d_sums: Tensor, grad_vec: Tensor, offset: Tensor, pos: Tensor,
    w: BlockWeights, index: Tensor, mask: Tensor | None, box: Tensor | None,
    saved: Saved, ball_size: int, bias: str, needs_pos: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    r"""Returns the gradients of queries, keys and values, of offsets, of the
    map of vectors, of positions and slopes.
    """
    d_turn, d_vec_out = _linear_backward(grad_vec, saved.turn, w.vec_out)
    d_out, d_offset = points.relative_backward(
        d_sums, d_turn, saved.sums, saved.turn, saved.out, offset, w.pos_vec)
    d_rows = fresh(saved.rows, *saved.rows.shape)
    _, _, _, d_pos, d_slope = attention.backward(
        [*saved.rows.unbind(2), saved.out, d_out], pos, w.slope, index, mask,
        box, saved.lse, ball_size, bias,
        [True, True, True, needs_pos, bool(bias)], list(d_rows.unbind(2)))
    return (d_rows, d_offset, d_vec_out, d_pos if needs_pos else None,
            d_slope if bias else None)


def _product_backward(
    grad: Tensor, along: Tensor, vec: Tensor, weight: Tensor,
    residual: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Returns the gradients of vectors, given that of their length, added to
    those that come by another way, and of the weight.
    """
    d_vec = _add_product(residual, grad, weight.t().contiguous())
    d_vec.addcmul_(vec, along[:, None, None], value=-1)
    return d_vec, grad.flatten(0, 1).t() @ vec.flatten(0, 1)


def _add_product(vec: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    r"""Returns :obj:`vec + x @ weight.t()`."""
    return dense.linear(x.flatten(0, 1), weight, None,
                        vec.flatten(0, 1)).view_as(vec)


def _linear_backward(grad: Tensor, x: Tensor,
                     weight: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the gradients of :obj:`x` and the weight."""
    out, d_weight, _ = dense.linear_backward(grad.flatten(0, 1),
                                             x.flatten(0, 1), weight)
    assert out is not None
    return out.view_as(x), d_weight
