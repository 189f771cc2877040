import itertools

import torch
from torch import Tensor
from torch.nn import GroupNorm

from benchmarks.experiments.nets.grid_net import GridConv, GridNet


class UNet(GridNet):
    r"""The network of the `"U-Net: Convolutional Networks for Biomedical
    Image Segmentation" <https://arxiv.org/abs/1505.04597>`_ paper on a grid
    to which points are brought: convolutions on coarser and coarser grids,
    each with twice the channels, and back, beside what was there before.

    Convolutions keep the size of their grid, and are followed by norms over
    all nodes and channels, so that clouds of a batch do not mix.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each node of the finest grid.
        out_channels (int): Size of each output sample.
        num_levels (int, optional): Number of grids. (default: :obj:`4`)
        resolution (int, optional): Number of nodes along each axis.
            (default: :obj:`32`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)

    Raises:
        ValueError: If the grid cannot be halved often enough.
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_levels: int = 4,
        resolution: int = 32,
        dim: int = 3,
    ) -> None:
        super().__init__(in_channels, hidden_channels, out_channels,
                         resolution, dim)
        if num_levels < 1 or resolution % 2**(num_levels - 1) != 0:
            raise ValueError(f"Expected 'resolution' to be a multiple of "
                             f"{2**(num_levels - 1)} for {num_levels} levels "
                             f"(got {resolution})")
        channels = [hidden_channels * 2**i for i in range(num_levels)]
        self.encoder = torch.nn.ModuleList(
            DoubleConv(*sizes, dim)
            for sizes in itertools.pairwise([self.grid_channels, *channels]))
        self.pool = (torch.nn.MaxPool1d, torch.nn.MaxPool2d,
                     torch.nn.MaxPool3d)[dim - 1](2)
        up = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d,
              torch.nn.ConvTranspose3d)[dim - 1]
        self.ups = torch.nn.ModuleList(up(2 * size, size, 2, stride=2)
                                       for size in channels[-2::-1])
        self.decoder = torch.nn.ModuleList(DoubleConv(2 * size, size, dim)
                                           for size in channels[-2::-1])

    def process(self, grid: Tensor, periodic: bool) -> Tensor:
        first, *others = self.encoder
        levels = [first(grid, periodic)]
        for block in others:
            levels.append(block(self.pool(levels[-1]), periodic))
        x = levels.pop()
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(torch.cat([levels.pop(), up(x)], dim=1), periodic)
        return x


class DoubleConv(torch.nn.Module):
    def __init__(self, in_channels: int, channels: int, dim: int) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList([
            GridConv(in_channels, channels, dim),
            GridConv(channels, channels, dim),
        ])
        self.norms = torch.nn.ModuleList(GroupNorm(1, channels)
                                         for _ in range(2))

    def forward(self, x: Tensor, periodic: bool) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x, periodic)).relu()
        return x
