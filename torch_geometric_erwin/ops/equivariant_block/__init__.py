r"""A whole block on scalars and vectors: attention within balls and a
feed-forward network.

Where the C++ kernels were built they compute what is scalar, and attention, in
float32 on the CPU, unless :class:`torch.autocast` asks for something else.
Everywhere else it is made of PyTorch's operations and
:func:`~torch_geometric_erwin.ops.ball_attention.ball_attention`.
"""

from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import Balls
from torch_geometric_erwin.ops.equivariant_block import (
    cpu,
    reference,
    register,
)
from torch_geometric_erwin.ops.equivariant_block.weights import BlockWeights
from torch_geometric_erwin.ops.transformed import needs_formula


def equivariant_block(
    x: Tensor,
    vec: Tensor,
    far: Tensor,
    offset: Tensor,
    pos: Tensor,
    weights: BlockWeights,
    balls: Balls,
    *,
    eps: tuple[float | None, float | None],
    bias: str | None = 'distance',
) -> tuple[Tensor, Tensor]:
    r"""Computes the block that
    :class:`~torch_geometric_erwin.nn.EquivariantErwinConv` is made of.
    Derivatives of any order exist with respect to all floating-point
    arguments.

    Args:
        x: Scalars, shape :math:`(N, C)`.
        vec: Vectors, shape :math:`(N, D, C)`.
        far: Distances from the centers of balls, shape :math:`(N, 1)`.
        offset: Positions relative to these, shape :math:`(N, D)`.
        pos: Positions, shape :math:`(N, D)`.
        weights: What the block has learned.
        balls: Where each point's slot is.
        eps: What the two normalizations of scalars add to the mean square;
            :obj:`None` for what PyTorch adds.
        bias: :obj:`"distance"`, :obj:`"squared"` or :obj:`None`.

    Returns:
        The features after the block, shapes :math:`(N, C)` and
        :math:`(N, D, C)`.
    """
    by_kernel = cpu.serves(x, vec, weights) and not needs_formula(
        x, vec, far, offset, pos, *weights, cell=balls.box)
    run = register if by_kernel else reference
    return run.equivariant_block(x, vec, far, offset, pos, weights, balls,
                                 eps, bias)


__all__ = ['BlockWeights', 'equivariant_block']
