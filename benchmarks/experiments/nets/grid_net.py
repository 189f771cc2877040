import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.nn import MLP

from benchmarks.experiments.nets.raster import Raster


class GridNet(torch.nn.Module):
    r"""Brings points to a regular grid for each cloud and what derived
    classes :meth:`process` there back to the points, where a last MLP sees it
    beside each point's own features.

    Grids are those of :func:`~benchmarks.experiments.nets.raster.place`.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each node of the grid that
            :meth:`process` returns.
        out_channels (int): Size of each output sample.
        resolution (int): Number of nodes along each axis.
        dim (int): Number of dimensions of the positions.
        margin (int, optional): Number of empty cells around clouds that are
            in no periodic box. (default: :obj:`1`)

    Raises:
        ValueError: If the grid has too few nodes, no margin, or more than
            three dimensions.
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        resolution: int,
        dim: int,
        margin: int = 1,
    ) -> None:
        super().__init__()
        check_grid(resolution, dim, margin)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.grid_channels = in_channels + 1 + dim
        self.resolution = resolution
        self.margin = margin
        self.head = MLP([hidden_channels + in_channels, hidden_channels,
                         out_channels], act='gelu', norm=None)

    def forward(self, data: Batch) -> Tensor:
        raster = Raster.of(data, self.resolution, self.margin)
        grid = self.process(raster.scatter(data.x), raster.periodic)
        return self.head(torch.cat([raster.gather(grid), data.x], dim=1))

    def process(self, grid: Tensor, periodic: bool) -> Tensor:
        r"""From shape :math:`(B, C_{\textrm{grid}}, R, \ldots)` to
        :math:`(B, C_{\textrm{hidden}}, R, \ldots)`.
        """
        raise NotImplementedError


class GridConv(torch.nn.Module):
    r"""A convolution with kernels of three nodes along each axis that keeps
    the size of the grid: beyond its border are zeros, or, in a periodic box,
    the nodes of the other side.
    """
    def __init__(self, in_channels: int, out_channels: int, dim: int,
                 dilation: int = 1) -> None:
        super().__init__()
        conv = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[dim - 1]
        self.conv = conv(in_channels, out_channels, 3, dilation=dilation)
        self.padding = [dilation] * 2 * dim

    def forward(self, x: Tensor, periodic: bool) -> Tensor:
        mode = 'circular' if periodic else 'constant'
        return self.conv(F.pad(x, self.padding, mode))


def check_grid(resolution: int, dim: int, margin: int) -> None:
    if dim not in (1, 2, 3):
        raise ValueError(f"Expected 'dim' to be 1, 2 or 3 (got {dim})")
    if margin < 1:
        raise ValueError(f"Expected 'margin' to be positive (got {margin})")
    if resolution < 2 * margin + 2:
        raise ValueError(f"Expected 'resolution' to be at least "
                         f"{2 * margin + 2} (got {resolution})")
