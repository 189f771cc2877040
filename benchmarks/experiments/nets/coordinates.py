r"""Positions as features."""

import math

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import scatter


def coordinates(data: Batch) -> Tensor:
    r"""Returns where points are, shape :math:`(N, 2D)`: as seen from the
    center of their cloud, followed by zeros; in a periodic box, sines and
    cosines, which know no border, in units of length, too.
    """
    if 'box' in data:
        radius = data.box[data.batch] / (2 * math.pi)
        angle = data.pos / radius
        return torch.cat([radius * angle.sin(), radius * angle.cos()], dim=1)
    center = scatter(data.pos, data.batch, dim_size=data.num_graphs,
                     reduce='mean')
    pos = data.pos - center[data.batch]
    return torch.cat([pos, torch.zeros_like(pos)], dim=1)
