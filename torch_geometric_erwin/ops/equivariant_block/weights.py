r"""What a block on scalars and vectors has learned."""

from typing import NamedTuple

from torch import Tensor


class BlockWeights(NamedTuple):
    r"""The weights of a block of :math:`C` channels with :math:`H` heads of
    :math:`s` scalars and :math:`u` vectors, with :math:`M` hidden channels
    and :math:`c` hidden vectors; those of linear layers as PyTorch has them.

    Args:
        scale1: Of the first normalization, shape :math:`(C)`.
        pos: Of distances from centers, shape :math:`(C, 1)`.
        pos_bias: Their bias, shape :math:`(C)`.
        qkv: Of queries, keys and values, shape :math:`(3 H (s + u), C)`.
        qkv_bias: Their bias, shape :math:`(3 H (s + u))`.
        vec: Of their vectors, shape :math:`(3 H u, C)`.
        pos_vec: Of positions in queries and keys, shape :math:`(H, 2, u)`.
        out: Of the heads' sums, shape :math:`(C, H (s + u))`.
        out_bias: Their bias, shape :math:`(C)`.
        vec_out: Of their vectors, shape :math:`(C, H u)`.
        hidden: Of hidden vectors, shape :math:`(c, C)`.
        norms: Of their lengths, shape :math:`(C, c)`.
        scale2: Of the second normalization, shape :math:`(C)`.
        mlp_in: Of gates and hidden samples, shape :math:`(2 M, C)`.
        mlp_in_bias: Their bias, shape :math:`(2 M)`.
        mlp_out: Of the gated samples, shape :math:`(C, M)`.
        mlp_out_bias: Their bias, shape :math:`(C)`.
        gate: Of what multiplies hidden vectors, shape :math:`(c, C)`.
        gate_bias: Their bias, shape :math:`(c)`.
        hidden_out: Of the gated vectors, shape :math:`(C, c)`.
        slope: What each head multiplies distances by, shape :math:`(H)`;
            :obj:`None` without bias.
    """
    scale1: Tensor
    pos: Tensor
    pos_bias: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    vec: Tensor
    pos_vec: Tensor
    out: Tensor
    out_bias: Tensor
    vec_out: Tensor
    hidden: Tensor
    norms: Tensor
    scale2: Tensor
    mlp_in: Tensor
    mlp_in_bias: Tensor
    mlp_out: Tensor
    mlp_out_bias: Tensor
    gate: Tensor
    gate_bias: Tensor
    hidden_out: Tensor
    slope: Tensor | None
