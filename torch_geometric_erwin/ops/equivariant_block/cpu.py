r"""A block on scalars and vectors by the C++ kernels of dense layers, of
attention, and of what is done to vectors point by point.

Vectors are normalized after linear maps, which are narrower: :math:`\mathbf{U}
(r \vec{\mathbf{v}}) = r \, \mathbf{U} \vec{\mathbf{v}}`.

But for attention, points are worked on some at a time. What lies between two
steps then stays in a cache, where memory for all points would have to come
from the system each time, which takes longer than most of the steps. For the
same reason, what is quickly made of the heads' sums is made anew for
gradients.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import cpu as attention
from torch_geometric_erwin.ops.dense import cpu as dense
from torch_geometric_erwin.ops.equivariant_block import points
from torch_geometric_erwin.ops.equivariant_block.weights import BlockWeights
from torch_geometric_erwin.ops.native import fresh

SOME = 4096  # points at a time: sums depend on it


class Saved(NamedTuple):
    r"""What the forward pass keeps, in the order of its making.

    Args:
        rows: Queries, keys and values, shape :math:`(N, H, 3, E)`.
        out: The heads' sums, shape :math:`(N, H, E)`.
        lse: The logarithms of the softmax' denominators, shape :math:`(N,
            H)`.
        half: Scalars half way, with lengths, shape :math:`(N, C)`.
    """
    rows: Tensor
    out: Tensor
    lse: Tensor
    half: Tensor


class _Halfway(NamedTuple):
    r"""What is made of the heads' sums and vectors.

    Args:
        sums: Scalars and lengths of the heads' sums.
        turn: Vectors relative to points, shape :math:`(N, D, H u)`.
        vec: Vectors half way.
        hidden: Hidden vectors.
        lengths: Of these.
    """
    sums: Tensor
    turn: Tensor
    vec: Tensor
    hidden: Tensor
    lengths: Tensor


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
    (heads, _, u), dim = w.pos_vec.shape, offset.size(1)
    width = w.qkv.size(0) // (3 * heads) + dim * u
    rows = fresh(x, x.size(0), heads, 3, width)
    for i in _some(x):
        qkv = dense.norm_linear(x[i], w.scale1, eps[0], far[i], w.pos,
                                w.pos_bias, w.qkv, w.qkv_bias)
        points.assemble(qkv, _map(vec[i], w.vec), vec[i], offset[i],
                        w.pos_vec, rows[i])
    out, lse = attention.forward(rows.unbind(2), pos, w.slope, index, mask,
                                 box, ball_size, bias)
    results = fresh(x, *x.shape), fresh(vec, *vec.shape), fresh(x, *x.shape)
    for i in _some(x):
        _update(x[i], _halfway(vec[i], out[i], offset[i], w), w, eps[1],
                *(y[i] for y in results))
    x, vec, half = results
    return x, vec, Saved(rows, out, lse, half)


def _some(x: Tensor) -> Iterator[slice]:
    return (slice(i, i + SOME) for i in range(0, max(len(x), 1), SOME))


def _halfway(vec: Tensor, out: Tensor, offset: Tensor,
             w: BlockWeights) -> _Halfway:
    sums, turn = points.relative(out, offset, w.pos_vec)
    vec = _map(turn, w.vec_out, vec)
    hidden = _map(vec, w.hidden)
    return _Halfway(sums, turn, vec, hidden, points.hide(hidden, vec))


def _update(x: Tensor, h: _Halfway, w: BlockWeights, eps: float,
            result: Tensor, result_vec: Tensor, half: Tensor) -> None:
    r"""Makes the results, and what :meth:`backward` needs."""
    x = dense.linear(h.sums, w.out, w.out_bias, x)
    dense.linear(h.lengths, w.norms, None, x, out=half)
    dense.swiglu(half, w.scale2, eps, w.mlp_in, w.mlp_in_bias, w.mlp_out,
                 w.mlp_out_bias, out=result)
    gate = dense.linear(result, w.gate, w.gate_bias)
    _map(points.gate(gate, h.hidden), w.hidden_out, h.vec, out=result_vec)


def backward(
    grad: Tensor, grad_vec: Tensor, x: Tensor, vec: Tensor, far: Tensor,
    offset: Tensor, pos: Tensor, w: BlockWeights, index: Tensor,
    mask: Tensor | None, box: Tensor | None, result: Tensor, saved: Saved,
    ball_size: int, eps: Sequence[float], bias: str, needs_pos: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, BlockWeights]:
    r"""Returns the gradients of features, vectors, distances, offsets,
    positions and weights.
    """
    rows, out, lse, half = saved
    d_x, d_vec, d_far, d_offset, d_out, d_rows = (
        fresh(y, *y.shape) for y in (x, vec, far, offset, out, rows))
    last = _add_up(
        _update_backward(grad[i], grad_vec[i], vec[i], offset[i], w,
                         result[i], out[i], half[i], eps[1], d_x[i],
                         d_vec[i], d_offset[i], d_out[i]) for i in _some(x))
    _, _, _, d_pos, d_slope = attention.backward(
        [*rows.unbind(2), out, d_out], pos, w.slope, index, mask, box, lse,
        ball_size, bias, [True, True, True, needs_pos, bool(bias)],
        list(d_rows.unbind(2)))
    first = _add_up(
        _project_backward(d_rows[i], rows[i], x[i], vec[i], far[i],
                          offset[i], w, eps[0], d_x[i], d_vec[i], d_far[i],
                          d_offset[i]) for i in _some(x))
    return (d_x, d_vec, d_far, d_offset, d_pos if needs_pos else None,
            BlockWeights._make([*first, *last, d_slope if bias else None]))


def _add_up(parts: Iterator[list[Tensor]]) -> list[Tensor]:
    r"""Adds up the gradients of weights."""
    totals = next(parts)
    for part in parts:
        for total, x in zip(totals, part, strict=True):
            total += x
    return totals


def _update_backward(
    grad: Tensor, grad_vec: Tensor, vec: Tensor, offset: Tensor,
    w: BlockWeights, result: Tensor, out: Tensor, half: Tensor, eps: float,
    d_half: Tensor, d_vec: Tensor, d_offset: Tensor, d_out: Tensor,
) -> list[Tensor]:
    r"""Makes the gradients of features and vectors half way, offsets and the
    heads' sums; returns those of weights.
    """
    h = _halfway(vec, out, offset, w)
    d_product, mlp = _mlp_backward(grad, grad_vec, w, result, h, half, eps,
                                   d_half)
    d_lengths, d_norms, _ = dense.linear_backward(d_half, h.lengths, w.norms)
    assert d_lengths is not None
    points.hide_backward(d_product, d_lengths, h.hidden, h.lengths, h.vec,
                         grad_vec, d_vec)
    _, d_hidden = _map_backward(d_product, h.vec, w.hidden, d_vec)

    d_sums, d_weight, d_bias = dense.linear_backward(d_half, h.sums, w.out)
    d_turn, d_vec_out = _map_backward(d_vec, h.turn, w.vec_out)
    assert d_sums is not None
    points.relative_backward(d_sums, d_turn, h.sums, h.turn, out, offset,
                             w.pos_vec, d_out, d_offset)
    return [d_weight, d_bias, d_vec_out, d_hidden, d_norms, *mlp]


def _mlp_backward(
    grad: Tensor, grad_vec: Tensor, w: BlockWeights, result: Tensor,
    h: _Halfway, half: Tensor, eps: float, d_half: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    r"""Makes the gradient of features half way; returns those of hidden
    vectors, as far as they are multiplied by gates, and of weights.
    """
    gate = dense.linear(result, w.gate, w.gate_bias)
    product = points.gate(gate, h.hidden)
    d_product, d_hidden_out = _map_backward(grad_vec, product, w.hidden_out)
    d_gate = points.gate_backward(d_product, gate, h.hidden)
    d_result, d_gate_w, d_gate_b = dense.linear_backward(
        d_gate, result, w.gate, residual_grad=grad)
    assert d_result is not None
    _, *mlp = dense.swiglu_backward(d_result, half, w.scale2, eps, w.mlp_in,
                                    w.mlp_in_bias, w.mlp_out, out=d_half)
    return d_product, [*mlp, d_gate_w, d_gate_b, d_hidden_out]


def _project_backward(
    d_rows: Tensor, rows: Tensor, x: Tensor, vec: Tensor, far: Tensor,
    offset: Tensor, w: BlockWeights, eps: float, d_x: Tensor, d_vec: Tensor,
    d_far: Tensor, d_offset: Tensor,
) -> list[Tensor]:
    r"""Makes the gradient of distances, adds to those of features, vectors
    and offsets, and returns those of weights.
    """
    d_qkv, d_lifted, d_pos_vec = points.assemble_backward(
        d_rows, rows, vec, offset, w.pos_vec, d_offset, d_vec)
    _, d_map = _map_backward(d_lifted, vec, w.vec, d_vec)
    _, d_scale, found, *learned = dense.norm_linear_backward(
        d_qkv, x, w.scale1, eps, far, w.pos, w.pos_bias, w.qkv, d_x, True,
        out=d_x)
    assert found is not None
    d_far.copy_(found)
    return [d_scale, *learned, d_map, d_pos_vec]


def _map(vec: Tensor, weight: Tensor, residual: Tensor | None = None,
         out: Tensor | None = None) -> Tensor:
    r"""Multiplies vectors by a weight, and adds a residual."""
    found = dense.linear(
        vec.flatten(0, 1), weight, None,
        None if residual is None else residual.flatten(0, 1),
        None if out is None else out.flatten(0, 1))
    return found.view(*vec.shape[:2], found.size(1))


def _map_backward(grad: Tensor, vec: Tensor, weight: Tensor,
                  d_vec: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Returns the gradients of vectors, added in place to what is known of
    it, and of the weight.
    """
    known = None if d_vec is None else d_vec.flatten(0, 1)
    out, d_weight, _ = dense.linear_backward(
        grad.flatten(0, 1), vec.flatten(0, 1), weight, residual_grad=known,
        out=known)
    assert out is not None
    return out.view_as(vec), d_weight
