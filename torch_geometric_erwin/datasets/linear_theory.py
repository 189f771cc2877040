r"""What cosmology itself predicts of velocities."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_erwin.datasets import grid


class LinearTheory:
    r"""Predicts velocities by linear perturbation theory, the field's own
    baseline: the tracers' density, smoothed, is taken for that of matter,
    and everything falls along the gradient of its potential,

    .. math::
        \mathbf{v} = A \nabla \nabla^{-2} (- \delta_g), \qquad A = a H f / b,

    with one amplitude :math:`A` fitted by least squares.

    Args:
        smoothing (float, optional): Radius of the Gaussian that smooths the
            density, in Mpc/h. (default: :obj:`10.`)
        grid_size (int, optional): Number of grid points along an edge of the
            box. (default: :obj:`64`)

    Raises:
        ValueError: If an argument is out of range.
    """
    def __init__(self, smoothing: float = 10., grid_size: int = 64) -> None:
        if not 0 <= smoothing < float('inf'):
            raise ValueError(f"Expected 'smoothing' to be a length "
                             f"(got {smoothing})")
        if grid_size < 2 or grid_size % 2:
            raise ValueError(f"Expected 'grid_size' to be positive and even "
                             f"(got {grid_size})")
        self.smoothing = smoothing
        self.grid_size = grid_size
        self.amplitude: float | None = None

    def fit(self, clouds: Iterable[Data]) -> 'LinearTheory':
        r"""Fits the amplitude to the velocities :obj:`y` of clouds.

        Raises:
            ValueError: If there are no clouds, or their tracers are spread
                perfectly evenly.
        """
        product, square = 0., 0.
        for data in clouds:
            direction = self.displacement(data)
            product += (direction * data.y).sum().item()
            square += direction.square().sum().item()
        if square == 0:
            raise ValueError("Expected 'clouds' to hold uneven clouds (got "
                             "none)")
        self.amplitude = product / square
        return self

    def displacement(self, data: Data) -> Tensor:
        r"""Estimates how far tracers have been moved by now, shape
        :math:`(N, 3)`, in Mpc/h times the bias.

        Raises:
            ValueError: If the cloud lies in no cubic box.
        """
        edges = data.box.flatten().tolist() if 'box' in data else []
        if len(edges) != 3 or len(set(edges)) != 1:
            raise ValueError(f"Expected 'data' to have one cubic 'box' "
                             f"(got {edges or 'none'})")
        box = edges[0]
        density = torch.fft.rfftn(grid.paint(data.pos, self.grid_size, box))
        density = grid.smooth(density, box, self.smoothing)
        field = -grid.gradient_of_potential(density, box)
        return grid.interpolate(field, data.pos, box).to(data.pos.dtype)

    def __call__(self, data: Data) -> Tensor:
        r"""Predicts velocities, shape :math:`(N, 3)`, in km/s.

        Raises:
            ValueError: If the amplitude has not been fitted.
        """
        if self.amplitude is None:
            raise ValueError("Expected 'fit' to be called first (got no "
                             "amplitude)")
        return self.amplitude * self.displacement(data)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(smoothing={self.smoothing:g}, '
                f'grid_size={self.grid_size}, amplitude={self.amplitude})')
