from typing import Any

import neuralop.models
import torch
from neuralop.layers.spectral_convolution import SpectralConv
from torch import Tensor

from benchmarks.experiments.nets.grid_net import GridNet


class FNO(GridNet):
    r"""The network of the `"Fourier Neural Operator for Parametric Partial
    Differential Equations" <https://arxiv.org/abs/2010.08895>`_ paper, by the
    package :obj:`neuraloperator`, on a grid to which points are brought:
    layers multiply the longest waves by matrices of their own.

    Waves close around the grid, as they should in a periodic box; around
    other clouds, a margin is left. The network sees no coordinates but those
    among the features. Waves are single precision, whatever the rest is.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Size of each node of the grid.
        out_channels (int): Size of each output sample.
        num_modes (int, optional): Number of waves along each axis, of both
            signs. (default: :obj:`8`)
        num_layers (int, optional): Number of layers. (default: :obj:`4`)
        resolution (int, optional): Number of nodes along each axis.
            (default: :obj:`32`)
        margin (int, optional): Number of empty cells around clouds that are
            in no periodic box. (default: :obj:`4`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)

    Raises:
        ValueError: If the grid has an odd number of nodes, or fewer than
            waves.
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_modes: int = 8,
        num_layers: int = 4,
        resolution: int = 32,
        margin: int = 4,
        dim: int = 3,
    ) -> None:
        super().__init__(in_channels, hidden_channels, out_channels,
                         resolution, dim, margin)
        check_modes(num_modes, resolution)
        self.fno = neuralop.models.FNO(
            n_modes=(num_modes, ) * dim, in_channels=self.grid_channels,
            out_channels=hidden_channels, hidden_channels=hidden_channels,
            n_layers=num_layers, positional_embedding=None,
            conv_module=SinglePrecisionConv)
        self.register_state_dict_post_hook(drop_metadata)

    def process(self, grid: Tensor, periodic: bool) -> Tensor:
        return self.fno(grid)


class SinglePrecisionConv(SpectralConv):
    r"""The package's layer has no other precision."""
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float(), *args, **kwargs).to(x.dtype)


def check_modes(num_modes: int, resolution: int) -> None:
    # The package confuses the frequencies of an odd number of nodes.
    if resolution % 2 != 0:
        raise ValueError(f"Expected 'resolution' to be even "
                         f"(got {resolution})")
    if not 1 <= num_modes <= resolution:
        raise ValueError(f"Expected 'num_modes' to be at most 'resolution', "
                         f"{resolution}, and positive (got {num_modes})")


def drop_metadata(module: torch.nn.Module, state_dict: dict[str, Any],
                  *args: Any) -> None:
    # The package adds its arguments, which are no weights: checkpoints with
    # them cannot be loaded.
    state_dict.pop('_metadata', None)
