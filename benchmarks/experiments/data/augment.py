r"""Random changes to a batch of clouds that do not change what there is to
learn.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch


def augment(data: Batch) -> Batch:
    r"""Turns each cloud and its vectors :obj:`y`, and moves periodic clouds
    about in their boxes.
    """
    dim = data.pos.size(1)
    if 'box' in data:
        turn = signed_permutations(data.num_graphs, dim, data.pos)
        data.box = apply(turn.abs(), data.box)
    else:
        turn = orthogonal(data.num_graphs, dim, data.pos)
    data.pos = apply(turn[data.batch], data.pos)
    data.y = apply(turn[data.batch], data.y)
    if 'box' in data:
        shift = torch.rand_like(data.box) * data.box
        data.pos = wrap(data.pos + shift[data.batch], data.box[data.batch])
    return data


def signed_permutations(num: int, dim: int, like: Tensor) -> Tensor:
    r"""Draws from the symmetries of the cube (48 in three dimensions),
    shape :math:`(\textrm{num}, D, D)`.
    """
    order = torch.rand(num, dim, device=like.device).argsort(dim=1)
    sign = torch.randint(0, 2, (num, dim, 1), device=like.device) * 2 - 1
    return (F.one_hot(order, dim) * sign).to(like.dtype)


def orthogonal(num: int, dim: int, like: Tensor) -> Tensor:
    r"""Draws rotations and reflections, each as likely as the next, shape
    :math:`(\textrm{num}, D, D)`.
    """
    noise = torch.randn(num, dim, dim, device=like.device)
    q, r = torch.linalg.qr(noise)
    # The decomposition prefers some signs (Mezzadri 2006).
    return (q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)).to(like.dtype)


def apply(matrix: Tensor, vector: Tensor) -> Tensor:
    # Not a matrix product, which may be less precise than its input.
    return (matrix * vector.unsqueeze(1)).sum(dim=2)


def wrap(pos: Tensor, box: Tensor) -> Tensor:
    r"""Moves positions into :math:`[0, L)` of their box."""
    pos = torch.remainder(pos, box)
    return torch.where(pos >= box, 0., pos)  # rounded up
