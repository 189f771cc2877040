r"""Fields on a periodic cubic grid."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def wave_vectors(size: int, box: float) -> list[Tensor]:
    r"""Returns the wave vectors of :func:`torch.fft.rfftn`, axis by axis,
    broadcastable to its shape.
    """
    unit = 2 * math.pi / box
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64) * unit
    half = torch.fft.rfftfreq(size, 1 / size, dtype=torch.float64) * unit
    return [k.view(-1, 1, 1), k.view(1, -1, 1), half.view(1, 1, -1)]


def square_length(k: list[Tensor]) -> Tensor:
    return k[0]**2 + k[1]**2 + k[2]**2


def gradient_of_potential(source: Tensor, box: float) -> Tensor:
    r"""Solves :math:`\nabla^2 \phi = s` and returns :math:`\nabla \phi`.

    Args:
        source: The Fourier transform of :math:`s`, by
            :func:`torch.fft.rfftn`.
        box: The edge of the cell.

    Returns:
        The field, shape :math:`(3, G, G, G)`.
    """
    size = source.size(0)
    k = wave_vectors(size, box)
    potential = -source / square_length(k).clamp(min=1e-12)
    potential[0, 0, 0] = 0
    return torch.stack([back(1j * _odd(axis, size, box) * potential)
                        for axis in k])


def second_derivatives(source: Tensor, box: float) -> Iterator[Tensor]:
    r"""Yields :math:`\partial_i \partial_j \phi` for :math:`ij` = xx, yy,
    zz, xy, xz, yz.
    """
    size = source.size(0)
    k = wave_vectors(size, box)
    potential = -source / square_length(k).clamp(min=1e-12)
    potential[0, 0, 0] = 0
    for i in range(3):
        yield back(-k[i]**2 * potential)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        yield back(-_odd(k[i], size, box) * _odd(k[j], size, box) * potential)


def _odd(k: Tensor, size: int, box: float) -> Tensor:
    r"""Drops the Nyquist frequency, whose first derivative is no real
    field.
    """
    nyquist = math.pi * size / box
    return torch.where(k.abs() > nyquist * (1 - 1e-9), 0., k)


def back(field: Tensor) -> Tensor:
    size = field.size(0)
    return torch.fft.irfftn(field, s=(size, size, size))


def smooth(field: Tensor, box: float, radius: float) -> Tensor:
    r"""Multiplies a Fourier transform by a Gaussian's of that radius."""
    k = wave_vectors(field.size(0), box)
    return field * torch.exp(-square_length(k) * radius**2 / 2)


def corners(pos: Tensor, size: int,
            box: float) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Yields the eight grid points around each position, as flat indices,
    and their weights (cloud in cell). Grid point :math:`(i, j, k)` is at
    these numbers times the spacing.
    """
    scaled = pos.double() * (size / box)
    low = scaled.floor()
    inside = scaled - low
    low = low.long()
    for corner in range(8):
        bits = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        weight = torch.where(bits > 0, inside, 1 - inside).prod(1)
        x, y, z = ((low + bits) % size).unbind(1)
        yield (x * size + y) * size + z, weight


def interpolate(field: Tensor, pos: Tensor, box: float) -> Tensor:
    r"""Reads fields at positions.

    Args:
        field: Shape :math:`(C, G, G, G)`.
        pos: Shape :math:`(N, 3)`.
        box: The edge of the cell.

    Returns:
        The values, shape :math:`(N, C)`.
    """
    flat = field.flatten(1)
    out = torch.zeros(pos.size(0), len(flat), dtype=flat.dtype)
    for index, weight in corners(pos, field.size(1), box):
        out += (flat[:, index] * weight).t()
    return out


def paint(pos: Tensor, size: int, box: float) -> Tensor:
    r"""Returns the density contrast of points, shape :math:`(G, G, G)`."""
    density = torch.zeros(size**3, dtype=torch.float64)
    for index, weight in corners(pos, size, box):
        density.index_add_(0, index, weight)
    return (density / density.mean() - 1).view(size, size, size)
