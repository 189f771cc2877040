r"""Distances that can be differentiated twice everywhere."""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.periodic import nearest_image


def distance(
    a: Tensor,
    b: Tensor,
    box: Tensor | None = None,
    squared: bool = False,
) -> Tensor:
    r"""Computes distances in at least float32.

    Where a distance is zero, so are its derivatives.

    Args:
        a: Positions, shape :math:`(*, D)`.
        b: Positions, broadcastable to them.
        box: The edges of the periodic cell, broadcastable to them, or its
            rows, with one axis more; see
            :mod:`torch_geometric_erwin.ops.periodic`.
        squared: Whether to return squares.
    """
    a, b = at_least_float(a), at_least_float(b)
    if box is not None and box.dim() > max(a.dim(), b.dim()):
        square = nearest_image(a - b, box.to(a.dtype)).square().sum(-1)
        return square if squared else _root(square)
    square = torch.zeros((), dtype=a.dtype, device=a.device)
    for i in range(a.size(-1)):  # one by one: no tensor of differences
        edge = None if box is None else box[..., i].to(a.dtype)
        square = square + nearest_image(a[..., i] - b[..., i], edge).square()
    return square if squared else _root(square)


def length(x: Tensor) -> Tensor:
    r"""Returns the lengths of vectors, shape :math:`(*, D)`. Where a length
    is zero, so are its derivatives.
    """
    return _root(x.square().sum(-1))


def _root(square: Tensor) -> Tensor:
    positive = square > 0
    return torch.where(positive, square, 1.).sqrt() * positive


def at_least_float(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
