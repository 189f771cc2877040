r"""A block on scalars and vectors by the C++ kernels for scalars and for
attention, and by products of matrices for vectors.

Vectors are normalized after linear maps, which are narrower: :math:`\mathbf{U}
(r \vec{\mathbf{v}}) = r \, \mathbf{U} \vec{\mathbf{v}}`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import cpu as attention
from torch_geometric_erwin.ops.dense import cpu as dense
from torch_geometric_erwin.ops.equivariant_block import reference
from torch_geometric_erwin.ops.equivariant_block.weights import BlockWeights
from torch_geometric_erwin.ops.native import fresh
from torch_geometric_erwin.ops.vectors import EPS, EPS_NORM


class Saved(NamedTuple):
    r"""What the forward pass keeps, in the order of its making.

    Args:
        unit: One over the root mean square of vectors, shape :math:`(N)`.
        lifted: Vectors of queries, keys and values, less positions.
        rows: Queries, keys and values.
        out: The heads' sums.
        lse: The logarithms of the softmax' denominators.
        turn: Vectors relative to points, shape :math:`(N, D, H, u)`.
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
    unit = _unit(vec)
    lifted = (vec @ w.vec.t()).mul_(unit[:, None, None])
    rows = reference.assemble(qkv, lifted, offset, w.pos_vec)
    out, lse = attention.forward(rows.unbind(2), pos, w.slope, index, mask,
                                 box, ball_size, bias)
    sums, turn = reference.relative(out, offset, w.pos_vec.size(2))
    sums = torch.cat([sums, _lengths(turn)], dim=2).flatten(1)
    x = dense.linear(sums, w.out, w.out_bias, x)
    half_vec = _add_product(vec, turn.flatten(2), w.vec_out)
    half_unit = _unit(half_vec)
    hidden = (half_vec @ w.hidden.t()).mul_(half_unit[:, None, None])
    lengths = _lengths(hidden)
    half = dense.linear(lengths, w.norms, None, x)
    x = dense.swiglu(half, w.scale2, eps[1], w.mlp_in, w.mlp_in_bias,
                     w.mlp_out, w.mlp_out_bias)
    gate = dense.linear(x, w.gate, w.gate_bias)
    vec = _add_product(half_vec, gate.unsqueeze(1) * hidden, w.hidden_out)
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

    number = w.pos_vec.size(2)
    width = d_rows.size(3) - offset.size(1) * number
    d_vecs = d_rows[..., width:].unflatten(3, (-1, number)).permute(
        0, 3, 1, 2, 4)  # of points, dimensions, heads, rows, vectors
    weight = torch.cat([
        w.pos_vec.expand(len(x), -1, -1, -1),
        saved.rows[:, :, 2:, width - number:width]], dim=2)
    d_offset += (d_vecs * weight.unsqueeze(1)).flatten(2).sum(2)
    d_weight = (d_vecs * offset[:, :, None, None, None]).sum(1)
    d_qkv = d_rows[..., :width].contiguous()
    d_qkv[:, :, 2, -number:] += d_weight[:, :, 2]
    d_vec, d_lin = _normalized_backward(
        d_vecs.flatten(2), saved.lifted, saved.unit, vec, w.vec, d_half_vec)
    d_x, d_scale, d_far, d_pos_w, d_pos_b, d_w, d_b = (
        dense.norm_linear_backward(d_qkv.flatten(1), x, w.scale1, eps[0], far,
                                   w.pos, w.pos_bias, w.qkv, d_half, True))
    assert d_far is not None
    return d_x, d_vec, d_far, d_offset, d_pos, BlockWeights(
        d_scale, d_pos_w, d_pos_b, d_w, d_b, d_lin,
        d_weight[:, :, :2].sum(0), d_out, d_out_bias, d_vec_out, *mlp,
        d_slope)


def _mlp_backward(
    grad: Tensor, grad_vec: Tensor, w: BlockWeights, result: Tensor,
    saved: Saved, eps: Sequence[float],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    r"""Returns the gradients of features and vectors half way, and of the
    feed-forward network's weights.
    """
    gate, hidden = saved.gate.unsqueeze(1), saved.hidden
    d_hidden_out = _weight_grad(grad_vec, gate * hidden)
    d_product = grad_vec @ w.hidden_out
    d_gate = (d_product * hidden).sum(1)
    d_result, d_gate_w, d_gate_b = dense.linear_backward(d_gate, result,
                                                         w.gate)
    assert d_result is not None
    d_half, *mlp = dense.swiglu_backward(
        d_result.add_(grad), saved.half, w.scale2, eps[1], w.mlp_in,
        w.mlp_in_bias, w.mlp_out)
    d_lengths, d_norms, _ = dense.linear_backward(d_half, saved.lengths,
                                                  w.norms)
    assert d_lengths is not None
    d_hidden = d_product.mul_(gate).addcmul_(
        hidden, d_lengths.div_(saved.lengths).unsqueeze(1))
    d_half_vec, d_hidden_w = _normalized_backward(
        d_hidden, hidden, saved.half_unit, saved.half_vec, w.hidden, grad_vec)
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
    heads, _, number = w.pos_vec.shape
    d_vec_out = _weight_grad(grad_vec, saved.turn.flatten(2))
    d_turn = (grad_vec @ w.vec_out).unflatten(2, (heads, number))
    d_sums = d_sums.unflatten(1, (heads, -1))
    scalars = d_sums.size(2) - number
    lengths = saved.sums.unflatten(1, (heads, -1))[..., scalars:]
    d_turn.addcmul_(saved.turn,
                    (d_sums[..., scalars:] / lengths).unsqueeze(1))
    d_weight = -(d_turn * offset[:, :, None, None]).sum(1)
    weight = saved.out[..., scalars:scalars + number].unsqueeze(1)
    d_offset = -(d_turn * weight).flatten(2).sum(2)
    d_out = torch.cat([d_sums[..., :scalars], d_weight,
                       d_turn.transpose(1, 2).flatten(2)], dim=2)
    d_rows = fresh(saved.rows, *saved.rows.shape)
    _, _, _, d_pos, d_slope = attention.backward(
        [*saved.rows.unbind(2), saved.out, d_out], pos, w.slope, index, mask,
        box, saved.lse, ball_size, bias,
        [True, True, True, needs_pos, bool(bias)], list(d_rows.unbind(2)))
    return (d_rows, d_offset, d_vec_out, d_pos if needs_pos else None,
            d_slope if bias else None)


def _normalized_backward(
    grad: Tensor, out: Tensor, unit: Tensor, vec: Tensor, weight: Tensor,
    residual: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Returns the gradients of vectors, added to those that come by another
    way, and of the weight, of :obj:`out = unit * vec @ weight.t()`.
    """
    along = (grad * out).flatten(1).sum(1) * unit.square()
    along = along / (vec.size(1) * vec.size(2))
    grad = grad * unit[:, None, None]
    d_vec = _add_product(residual, grad, weight.t())
    d_vec.addcmul_(vec, along[:, None, None], value=-1)
    return d_vec, _weight_grad(grad, vec)


def _unit(vec: Tensor) -> Tensor:
    square = torch.linalg.vector_norm(vec.flatten(1), dim=1).square_()
    return square.div_(vec.size(1) * vec.size(2)).add_(EPS_NORM).rsqrt_()


def _lengths(vec: Tensor) -> Tensor:
    return vec.square().sum(1).add_(EPS).sqrt_()


def _add_product(vec: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    r"""Returns :obj:`vec + x @ weight.t()`."""
    return torch.addmm(vec.flatten(0, 1), x.flatten(0, 1),
                       weight.t()).view_as(vec)


def _weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    return grad.flatten(0, 1).t() @ x.flatten(0, 1)
