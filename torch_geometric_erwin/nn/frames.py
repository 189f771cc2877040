r"""The principal axes of clouds, along which a turned cloud is the same."""

from itertools import product

import torch
from torch import Tensor

from torch_geometric_erwin.ops.distance import at_least_float


def principal_axes(pos: Tensor, batch: Tensor, num_clouds: int,
                   proper: bool) -> tuple[Tensor, Tensor]:
    r"""Returns positions relative to the means of their clouds, shape
    :math:`(N, D)`, and the clouds' axes, shape :math:`(B, D, D)`: columns, in
    the order of increasing variance, right-handed if they are to be
    :obj:`proper`. Both are in float32 at least.

    They are differentiable, except for the axes of clouds whose variances
    along two axes agree to half of the digits.
    """
    dtype = at_least_float(pos).dtype
    pos = pos.double()  # lest the order of many points is seen in their sum
    count = pos.new_zeros(num_clouds).index_add(
        0, batch, pos.new_ones(1).expand(pos.size(0))).clamp(min=1)
    offset = pos - _means(pos, batch, count)[batch]
    square = offset.unsqueeze(2) * offset.unsqueeze(1)
    axes = _axes(_means(square, batch, count), torch.finfo(dtype).eps**0.5)
    if proper:
        left = torch.linalg.det(axes.detach()).unsqueeze(1) < 0
        axes = torch.cat([axes[..., :-1], torch.where(
            left, -axes[..., -1], axes[..., -1]).unsqueeze(2)], 2)
    return offset.to(dtype), axes.to(dtype)


def _means(value: Tensor, batch: Tensor, count: Tensor) -> Tensor:
    size = [-1] + [1] * (value.dim() - 1)
    total = value.new_zeros(count.size(0), *value.shape[1:])
    return total.index_add(0, batch, value) / count.view(size)


def _axes(variance: Tensor, tol: float) -> Tensor:
    r"""Returns eigenvectors that are constants where eigenvalues are nearly
    equal: there, derivatives would be infinite.
    """
    size, axes = torch.linalg.eigh(variance.detach())
    apart = size.diff(dim=1) > tol * size[:, -1:]
    safe = apart.all(1).view(-1, 1, 1)
    other = torch.arange(size.size(1), device=size.device).diag_embed()
    _, smooth = torch.linalg.eigh(torch.where(safe, variance, other))
    return torch.where(safe, smooth, _settle(axes, apart))


def _settle(axes: Tensor, apart: Tensor) -> Tensor:
    r"""Turns axes of equal variances towards those of space. They would
    follow rounding errors, and these the order of the points.
    """
    dim = axes.size(1)
    group = torch.nn.functional.pad(apart.long().cumsum(1), (1, 0))
    number = torch.arange(1, dim + 1, device=axes.device)
    # Square roots, lest natural planes cut this ellipsoid in circles.
    height = number.to(axes.dtype).sqrt().diag_embed()
    inner = torch.where(group.unsqueeze(2) == group.unsqueeze(1),
                        axes.mT @ height @ axes, 0.)
    inner = inner + (group * dim).to(axes.dtype).diag_embed()
    return axes @ torch.linalg.eigh(inner)[1]


def all_signs(dim: int, proper: bool) -> Tensor:
    r"""Returns the ways to mirror axes, :math:`(2^D, D)`, or those that keep
    them right-handed, :math:`(2^{D - 1}, D)`.
    """
    signs = torch.tensor([*product([1., -1.], repeat=dim)])
    return signs[signs.prod(1) > 0] if proper else signs


def turn(axes: Tensor, vec: Tensor) -> Tensor:
    r"""Multiplies vectors, shape :math:`(N, D, V)`, by matrices, in at least
    their own precision, also within :class:`torch.autocast`.
    """
    with torch.autocast(vec.device.type, enabled=False):
        dtype = torch.promote_types(axes.dtype, vec.dtype)
        return axes.to(dtype) @ vec.to(dtype)
