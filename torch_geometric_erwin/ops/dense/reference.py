r"""The formulas of the fused layers, in pure torch."""

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, scale: Tensor | None,
             eps: float | None) -> Tensor:
    r"""PyTorch has one kernel for it, where both are of the same type."""
    if scale is not None:
        scale = scale.to(x.dtype)
    return F.rms_norm(x, x.shape[-1:], scale, eps)


def norm_linear(x: Tensor, scale: Tensor, eps: float | None, offset: Tensor,
                pos_weight: Tensor, pos_bias: Tensor, weight: Tensor,
                bias: Tensor) -> Tensor:
    h = rms_norm(x, scale, eps)
    h = h + F.linear(offset, pos_weight, pos_bias)
    return F.linear(h, weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None,
           residual: Tensor | None = None) -> Tensor:
    out = F.linear(x, weight, bias)
    return out if residual is None else residual + out


def swiglu(x: Tensor, scale: Tensor, eps: float | None, w_in: Tensor,
           b_in: Tensor, w_out: Tensor, b_out: Tensor) -> Tensor:
    h = rms_norm(x, scale, eps)
    gate, value = F.linear(h, w_in, b_in).chunk(2, -1)
    return x + F.linear(F.silu(gate) * value, w_out, b_out)
