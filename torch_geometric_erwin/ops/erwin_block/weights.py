r"""What a block has learned."""

from typing import NamedTuple

from torch import Tensor


class BlockWeights(NamedTuple):
    r"""The weights of a block of :math:`C` channels with :math:`H` heads, in
    :math:`D` dimensions and with :math:`M` hidden channels; those of linear
    layers as PyTorch has them.

    Args:
        scale1: Of the first normalization, shape :math:`(C)`.
        pos: Of relative positions, shape :math:`(C, D)`.
        pos_bias: Their bias, shape :math:`(C)`.
        qkv: Of queries, keys and values, shape :math:`(3 C, C)`.
        qkv_bias: Their bias, shape :math:`(3 C)`.
        out: Of the heads' sums, shape :math:`(C, C)`.
        out_bias: Their bias, shape :math:`(C)`.
        scale2: Of the second normalization, shape :math:`(C)`.
        mlp_in: Of gates and hidden samples, shape :math:`(2 M, C)`.
        mlp_in_bias: Their bias, shape :math:`(2 M)`.
        mlp_out: Of the gated samples, shape :math:`(C, M)`.
        mlp_out_bias: Their bias, shape :math:`(C)`.
        slope: What each head multiplies distances by, shape :math:`(H)`;
            :obj:`None` without bias.
    """
    scale1: Tensor
    pos: Tensor
    pos_bias: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    scale2: Tensor
    mlp_in: Tensor
    mlp_in_bias: Tensor
    mlp_out: Tensor
    mlp_out_bias: Tensor
    slope: Tensor | None
