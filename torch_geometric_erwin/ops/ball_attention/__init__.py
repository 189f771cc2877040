r"""Attention within balls.

Who computes it, in this order:

- `reference`: with dropout, within the transforms of `torch.func`, and where
  the periodic cell requires gradients.
- `cpu`, by way of `register`: float32, bfloat16 and float16 on the CPU, where
  the C++ kernels were built, also in compiled models. It was faster than
  `flash` at all sizes measured (balls of 8 to 1,024, heads of 8 to 64).
- `triton`, by way of `register`: the same on NVIDIA's GPUs since Ampere, where
  Triton is installed, with heads of up to 256; of lattices, those in up to
  three dimensions.
- `flash`: without a bias, and with squared distances in at least float32 and
  no periodic cell.
- `reference`: with distances in compiled models.
- `chunked`: all else. Second derivatives of `cpu` and `triton` are those of
  its formula.

PyTorch's FlexAttention is left out: compiled for the CPU (PyTorch 2.13) its
distance biases were wrong where shapes are dynamic.
"""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import (
    chunked,
    cpu,
    flash,
    reference,
    register,
    triton,
)
from torch_geometric_erwin.ops.ball_attention.balls import Balls
from torch_geometric_erwin.ops.transformed import needs_formula

BIASES = ('distance', 'squared', None)


def ball_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pos: Tensor,
    slope: Tensor | None,
    balls: Balls,
    *,
    bias: str | None = 'distance',
    dropout: float = 0.,
) -> Tensor:
    r"""Lets the points of each ball attend to each other (equations 8 and
    10):

    .. math::
        \mathbf{o}_i = \sum_{j \in B(i)} \textrm{softmax}_j \left(
        \frac{\mathbf{q}_i^{\top} \mathbf{k}_j}{\sqrt{E}} +
        s \, {\| \mathbf{p}_i - \mathbf{p}_j \|}^a \right) \mathbf{v}_j

    with :math:`a = 1` for the bias :obj:`"distance"` and :math:`a = 2` for
    :obj:`"squared"`. Derivatives of any order exist with respect to all
    floating-point arguments; those of a distance are zero where it is zero.

    Args:
        query: Queries of :math:`H` heads, shape :math:`(N, H, E)`.
        key: Keys, shape :math:`(N, H, E)`.
        value: Values, shape :math:`(N, H, E)`.
        pos: Positions, shape :math:`(N, D)`.
        slope: The factor :math:`s` of each head's bias, shape :math:`(H)`;
            :obj:`None` without bias.
        balls: Where each point's slot is.
        bias: :obj:`"distance"`, :obj:`"squared"` or :obj:`None`.
        dropout: The probability to drop an attention weight.

    Returns:
        The sums, shape :math:`(N, H, E)`, of the queries' type.
    """
    assert bias in BIASES and (slope is None) == (bias is None)
    rows, args = (query, key, value), (pos, slope, balls)
    box = balls.box
    if needs_formula(*rows, pos, slope, cell=box):
        return reference.ball_attention(*rows, *args, bias, dropout)
    if dropout == 0.:
        wide_lattice = box is not None and box.dim() == 3 and pos.size(1) > 3
        if cpu.serves(*rows) or (triton.serves(*rows) and not wide_lattice):
            return register.ball_attention(*rows, *args, bias)
        if flash.serves(query, balls, bias):
            return flash.ball_attention(*rows, *args)
    if dropout > 0. or torch.compiler.is_compiling():
        return reference.ball_attention(*rows, *args, bias, dropout)
    return chunked.ball_attention(*rows, *args, bias)


__all__ = ['BIASES', 'Balls', 'ball_attention']
