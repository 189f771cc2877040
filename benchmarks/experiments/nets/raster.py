r"""Points of clouds on regular grids, and back."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import scatter

# Nodes that points hardly touch fade out, or a mean would jump when the last
# of its points leaves.
LEAST_WEIGHT = 0.01


class Raster(NamedTuple):
    r"""Where each point lies among the nodes of its cloud's grid: between
    :math:`2^D` of them, by whose multilinear weights what points carry gets
    to the grid and what the grid carries gets to the points.

    It is plain indexing, as :func:`~torch.nn.functional.grid_sample` has no
    second derivatives, which forces train by.

    Args:
        index (torch.Tensor): The nodes around each point, numbered over all
            grids, shape :math:`(N, 2^D)`.
        weight (torch.Tensor): Their weights, which add up to one, shape
            :math:`(N, 2^D)`.
        cell (torch.Tensor): The distances of neighboring nodes of each grid,
            shape :math:`(B, D)`.
        resolution (int): Number of nodes along each axis.
        periodic (bool): If set to :obj:`True`, the last node of an axis is
            followed by the first.
    """
    index: Tensor
    weight: Tensor
    cell: Tensor
    resolution: int
    periodic: bool

    @staticmethod
    def of(data: Batch, resolution: int, margin: int = 1) -> 'Raster':
        r"""Lays a grid over each cloud, as :func:`place` does."""
        pos, cell = place(data, resolution, margin)
        dim = pos.size(1)
        corner = torch.tensor([*itertools.product((0, 1), repeat=dim)],
                              device=pos.device)
        base = pos.detach().floor()
        part = (pos - base).unsqueeze(1)
        weight = torch.where(corner.bool(), part, 1 - part).prod(dim=2)
        node = (base.long().unsqueeze(1) + corner) % resolution
        index = data.batch.unsqueeze(1)
        for axis in node.unbind(dim=2):
            index = index * resolution + axis
        return Raster(index, weight, cell, resolution, 'box' in data)

    def scatter(self, x: Tensor) -> Tensor:
        r"""Returns the weighted mean of what is around each node, zero where
        nothing is; the logarithm of one plus the sum of the weights, which
        tells the one from the other; and the distances of nodes. From shape
        :math:`(N, C)` to :math:`(B, C + 1 + D, R, \ldots)`.
        """
        num_clouds, dim = self.cell.shape
        num_nodes = self.resolution**dim
        value = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).unsqueeze(1)
        value = (self.weight.unsqueeze(2) * value).flatten(0, 1)
        total = scatter(value, self.index.flatten(),
                        dim_size=num_clouds * num_nodes)
        total, weight = total[:, :-1], total[:, -1:]
        cell = self.cell.repeat_interleave(num_nodes, dim=0)
        grid = torch.cat([total / weight.clamp(min=LEAST_WEIGHT),
                          weight.log1p(), cell], dim=1)
        return self.unflatten(grid)

    def gather(self, grid: Tensor) -> Tensor:
        r"""Interpolates between nodes, from shape :math:`(B, C, R, \ldots)`
        to :math:`(N, C)`.
        """
        value = flatten(grid)[self.index]
        return (self.weight.unsqueeze(2) * value).sum(dim=1)

    def unflatten(self, grid: Tensor) -> Tensor:
        r"""From shape :math:`(B R \cdots, C)` to
        :math:`(B, C, R, \ldots)`.
        """
        num_clouds, dim = self.cell.shape
        shape = (num_clouds, *[self.resolution] * dim, -1)
        return grid.reshape(shape).movedim(-1, 1).contiguous()


def flatten(grid: Tensor) -> Tensor:
    r"""From shape :math:`(B, C, R, \ldots)` to :math:`(B R \cdots, C)`."""
    return grid.movedim(1, -1).flatten(0, -2)


def place(data: Batch, resolution: int,
          margin: int = 1) -> tuple[Tensor, Tensor]:
    r"""Lays a grid over each cloud and returns where points are on it, in
    units of its cells, shape :math:`(N, D)`, and these units, shape
    :math:`(B, D)`.

    The grid fills the periodic box of a cloud where there is one. Or else it
    fills the cloud's bounding box and :obj:`margin` cells on every side; a
    bounding box as good as flat is taken for one cell thick.

    Raises:
        ValueError: If :obj:`box` holds anything but positive, finite edges,
            shape :math:`(B, D)`: grids do not follow lattices.
    """
    if 'box' in data:
        check_edges(data.box, data.num_graphs, data.pos.size(1))
        cell = data.box / resolution
        return (data.pos / cell[data.batch]).remainder(resolution), cell
    low, high = (scatter(data.pos, data.batch, dim_size=data.num_graphs,
                         reduce=reduce) for reduce in ('min', 'max'))
    num_cells = resolution - 1 - 2 * margin
    cell = cell_size(high - low, num_cells)
    return margin + (data.pos - low[data.batch]) / cell[data.batch], cell


def check_edges(box: Tensor, num_clouds: int, dim: int) -> None:
    if box.shape != (num_clouds, dim):
        raise ValueError(f"Expected 'box' to have edges of shape "
                         f"[{num_clouds}, {dim}] (got {list(box.shape)})")
    if not ((box > 0) & box.isfinite()).all():
        raise ValueError(f"Expected 'box' to have positive, finite edges "
                         f"(got {box.tolist()})")


def cell_size(side: Tensor, num_cells: int) -> Tensor:
    longest = side.amax(dim=1, keepdim=True)
    cell = side.maximum(longest / num_cells) / num_cells
    # A single point has no size: any will do.
    return torch.where(longest > 0, cell, torch.ones_like(cell))
