r"""What layers on vectors, of shape :math:`(N, D, C)`, have in common.

Linear maps of channels, sums, products with numbers that do not depend on the
orientation, and lengths: nothing else is done to vectors, so they turn along
with the positions.
"""

from typing import Any

import torch
from torch import Tensor


def check_vectors(vec: Any, x: Tensor, dim: int, channels: int | None = None,
                  name: str = 'vec') -> Tensor:
    r"""Checks that vectors go with features, with as many channels, or with
    so many, and returns them, zeros if there are none.
    """
    channels = x.size(1) if channels is None else channels
    shape = [x.size(0), dim, channels]
    if vec is None:
        return x.new_zeros(shape)
    if not isinstance(vec, Tensor) or list(vec.shape) != shape:
        got = list(vec.shape) if isinstance(vec, Tensor) else (
            type(vec).__name__)
        raise ValueError(f"Expected '{name}' to be a tensor of shape "
                         f"[num_points, dim, channels], {shape} (got {got})")
    if vec.dtype != x.dtype or vec.device != x.device:
        raise ValueError(f"Expected '{name}' to be of the type of the "
                         f"scalars, {x.dtype}, and on their device, "
                         f"{x.device} (got {vec.dtype} on {vec.device})")
    return vec


def reset_linear(*layers: torch.nn.Module) -> None:
    r"""Resets linear layers as all of Erwin's are: small, without bias."""
    for lin in layers:
        assert isinstance(lin.weight, Tensor)
        torch.nn.init.trunc_normal_(lin.weight, std=0.02)
        if isinstance(lin.bias, Tensor):
            torch.nn.init.zeros_(lin.bias)
