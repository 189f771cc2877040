import math
from typing import Any

import torch
from torch import Tensor


class BesselBasis(torch.nn.Module):
    r"""Radial functions that end smoothly at a cutoff :math:`c`, from the
    `"Directional Message Passing for Molecular Graphs"
    <https://arxiv.org/abs/2003.03123>`_ paper (equations 7 and 8):

    .. math::
        e_n(d) = u(d) \sqrt{\frac{2}{c}} \frac{\sin(n \pi d / c)}{d},
        \qquad
        u(d) = 1 - 28 (d / c)^6 + 48 (d / c)^7 - 21 (d / c)^8

    Args:
        num_basis (int): Number of functions.
        cutoff (float): The distance from which on they are zero.

    Shapes:
        - **input:** distances :math:`(*)`
        - **output:** :math:`(*, \textrm{num\_basis})`
    """
    def __init__(self, num_basis: int, cutoff: Any) -> None:
        super().__init__()
        if not isinstance(cutoff, float | int) or not 0 < cutoff < math.inf:
            raise ValueError(f"Expected 'cutoff' to be a positive distance "
                             f"(got {cutoff!r})")
        if not isinstance(num_basis, int) or num_basis < 1:
            raise ValueError(f"Expected 'num_basis' to be a positive integer "
                             f"(got {num_basis!r})")
        self.num_basis = num_basis
        self.cutoff = float(cutoff)

    def forward(self, dist: Tensor) -> Tensor:
        r"""Runs the forward pass of the module."""
        x = (dist / self.cutoff).unsqueeze(-1)
        frequency = math.pi * torch.arange(1, self.num_basis + 1,
                                           dtype=x.dtype, device=x.device)
        apart = x > 0
        safe = torch.where(apart, x, 1.)
        wave = torch.where(apart, torch.sin(frequency * safe) / safe,
                           frequency)  # the limit at zero
        smooth = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        smooth = smooth * (x < 1)
        return math.sqrt(2 / self.cutoff**3) * smooth * wave

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.num_basis}, '
                f'cutoff={self.cutoff})')
