r"""Lengths and normalization of vectors, shape :math:`(N, D, *)`, smooth where
they are zero.
"""

import torch.nn.functional as F
from torch import Tensor

from torch_geometric_erwin.ops.distance import at_least_float

EPS = 1e-6  # of squared lengths
EPS_NORM = 1e-5  # noise where vectors cancel stays noise


def norms(vec: Tensor) -> Tensor:
    r"""Returns the lengths of vectors of shape :math:`(N, D, *)`, shape
    :math:`(N, *)`.
    """
    square = at_least_float(vec).square().sum(1)
    return (square + EPS).sqrt().to(vec.dtype)


def inner(a: Tensor, b: Tensor) -> Tensor:
    r"""Returns the inner products of vectors of shape :math:`(N, D, *)`,
    shape :math:`(N, *)`.
    """
    out = (at_least_float(a) * at_least_float(b)).sum(1)
    return out.to(a.dtype)


def unit_rms(vec: Tensor) -> Tensor:
    r"""Divides vectors of shape :math:`(N, D, C)` by the root mean square of
    all of a point's numbers.
    """
    flat = at_least_float(vec).flatten(1)
    out = F.rms_norm(flat, flat.shape[1:], eps=EPS_NORM)
    return out.view_as(vec).to(vec.dtype)
