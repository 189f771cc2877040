r"""A whole block of the Erwin paper: attention within balls and a feed-forward
network.

Where the C++ kernels were built they compute it in float32 on the CPU, unless
:class:`torch.autocast` asks for something else: normalizations, positions,
gates and residuals run a few points at a time, along with the matrix products
next to them. Everywhere else it is made of PyTorch's operations and
:func:`~torch_geometric_erwin.ops.ball_attention.ball_attention`.
"""

from torch import Tensor

from torch_geometric_erwin.ops.ball_attention import Balls
from torch_geometric_erwin.ops.erwin_block import cpu, reference, register
from torch_geometric_erwin.ops.erwin_block.weights import BlockWeights
from torch_geometric_erwin.ops.transformed import needs_formula


def erwin_block(
    x: Tensor,
    offset: Tensor,
    pos: Tensor,
    weights: BlockWeights,
    balls: Balls,
    heads: int,
    *,
    eps: tuple[float | None, float | None],
    bias: str | None = 'distance',
) -> Tensor:
    r"""Computes a block:

    .. math::
        \mathbf{h} &= \textrm{RMSNorm}(\mathbf{x}) + \mathbf{W}_{\textrm{pos}}
        (\mathbf{p} - \mathbf{c})

        \mathbf{x}^{\prime} &= \mathbf{x} + \mathbf{W}_o \,
        \textrm{Attention}(\mathbf{W}_{qkv} \mathbf{h})

        \mathbf{x}^{\prime\prime} &= \mathbf{x}^{\prime} + \mathbf{W}_3 \left(
        \textrm{SiLU}(\mathbf{W}_1 \mathbf{n}) \odot \mathbf{W}_2 \mathbf{n}
        \right), \quad \mathbf{n} = \textrm{RMSNorm}(\mathbf{x}^{\prime})

    Derivatives of any order exist with respect to all floating-point
    arguments.

    Args:
        x: Features, shape :math:`(N, C)`.
        offset: Positions relative to the centers of balls, shape
            :math:`(N, D)`.
        pos: Positions, shape :math:`(N, D)`.
        weights: What the block has learned.
        balls: Where each point's slot is.
        heads: Number of attention heads.
        eps: What the two normalizations add to the mean square;
            :obj:`None` for what PyTorch adds.
        bias: :obj:`"distance"`, :obj:`"squared"` or :obj:`None`.

    Returns:
        The features after the block, shape :math:`(N, C)`.
    """
    by_kernel = cpu.serves(x, weights) and not needs_formula(
        x, offset, pos, *weights, cell=balls.box)
    run = register if by_kernel else reference
    return run.erwin_block(x, offset, pos, weights, balls, heads, eps, bias)


__all__ = ['BlockWeights', 'erwin_block']
