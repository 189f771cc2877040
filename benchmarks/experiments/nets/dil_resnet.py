from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.experiments.nets.grid_net import GridConv, GridNet


class DilResNet(GridNet):
    r"""The dilated residual network of the `"Learned Coarse Models for
    Efficient Turbulence Simulation" <https://arxiv.org/abs/2112.15275>`_
    paper on a grid to which points are brought, as the `"EAGLE: Large-Scale
    Learning of Turbulent Fluid Dynamics with Mesh Transformers"
    <https://arxiv.org/abs/2302.10803>`_ paper does to compare with it: blocks
    of convolutions that look farther and farther, and closer again.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each node of the grid.
        out_channels (int): Size of each output sample.
        num_blocks (int, optional): Number of blocks. (default: :obj:`4`)
        dilations (list[int], optional): How many nodes apart the convolutions
            of a block look. (default: :obj:`[1, 2, 4, 8, 4, 2, 1]`)
        resolution (int, optional): Number of nodes along each axis.
            (default: :obj:`32`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)

    Raises:
        ValueError: If convolutions look farther than the grid is wide.
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_blocks: int = 4,
        dilations: Sequence[int] = (1, 2, 4, 8, 4, 2, 1),
        resolution: int = 32,
        dim: int = 3,
    ) -> None:
        super().__init__(in_channels, hidden_channels, out_channels,
                         resolution, dim)
        if resolution < max(dilations):
            raise ValueError(f"Expected 'resolution' to be at least the "
                             f"largest of 'dilations', {max(dilations)} "
                             f"(got {resolution})")
        channels = hidden_channels
        self.encoder = GridConv(self.grid_channels, channels, dim)
        self.blocks = torch.nn.ModuleList(
            DilatedBlock(channels, dilations, dim) for _ in range(num_blocks))
        self.decoder = GridConv(channels, channels, dim)

    def process(self, grid: Tensor, periodic: bool) -> Tensor:
        x = self.encoder(grid, periodic)
        for block in self.blocks:
            x = x + block(x, periodic)
        return self.decoder(x, periodic)


class DilatedBlock(torch.nn.Module):
    def __init__(self, channels: int, dilations: Sequence[int],
                 dim: int) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(
            GridConv(channels, channels, dim, dilation)
            for dilation in dilations)

    def forward(self, x: Tensor, periodic: bool) -> Tensor:
        for conv in self.convs:
            x = conv(x, periodic).relu()
        return x
