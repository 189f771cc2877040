from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_erwin.datasets import grid
from torch_geometric_erwin.datasets.cosmology import Cosmology
from torch_geometric_erwin.datasets.drawn import DrawnDataset, expect


class HaloMock(DrawnDataset):
    r"""Halo-like tracers of a ΛCDM universe in periodic boxes, made on the
    fly, and their peculiar velocities: the cosmology task of the `"Erwin: A
    Tree-based Hierarchical Transformer for Large-scale Physical Systems"
    <https://arxiv.org/abs/2502.17019>`_ paper without its simulations.

    Positions decide velocities over long distances: each tracer falls
    towards the matter of the whole box. A Gaussian field with the power
    spectrum of :class:`~torch_geometric_erwin.datasets.Cosmology` is moved
    by second-order Lagrangian perturbation theory (Crocce, Pueblas and
    Scoccimarro 2006, equations 1 to 7):

    .. math::
        \mathbf{x} &= \mathbf{q} - \nabla \phi_1 - \tfrac{3}{7} \nabla \phi_2,
        \qquad \nabla^2 \phi_1 = \delta, \qquad \nabla^2 \phi_2 = \sum_{i > j}
        \left( \phi_{1,ii} \phi_{1,jj} - \phi_{1,ij}^2 \right)

        \mathbf{v} &= a H \left( - f_1 \nabla \phi_1 - \tfrac{3}{7} f_2 \nabla
        \phi_2 \right)

    Tracers begin where the initial density is high: at :math:`\mathbf{q}`
    with a probability in proportion to :math:`\exp(b \, \delta_R(
    \mathbf{q}))`, where :math:`\delta_R` is smoothed over :math:`R`.

    Each cloud has :obj:`pos` of shape :math:`(N, 3)` in Mpc/h inside the box,
    velocities :obj:`y` of shape :math:`(N, 3)` in km/s, and :obj:`box` of
    shape :math:`(1, 3)` in Mpc/h. The first clouds of a larger dataset are
    those of a smaller one.

    Args:
        root (str): Where to keep the clouds.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`:
            clouds that share nothing. (default: :obj:`"train"`)
        num_clouds (int, optional): Number of boxes. (default: :obj:`64`)
        num_halos (int, optional): Number of tracers in each.
            (default: :obj:`2000`)
        box_size (float, optional): Edge of the box in Mpc/h.
            (default: :obj:`400.`)
        grid_size (int, optional): Number of grid points along an edge.
            (default: :obj:`64`)
        bias (float, optional): How strongly tracers prefer dense places,
            :math:`b`. (default: :obj:`1.`)
        smoothing (float, optional): What they call dense, :math:`R` in
            Mpc/h. (default: :obj:`6.`)
        redshift (float, optional): When to look. (default: :obj:`0.`)
        cosmology (Cosmology, optional): The universe.
            (default: that of the paper's simulations)
        seed (int, optional): Another one makes other clouds.
            (default: :obj:`0`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)
        pre_transform (callable, optional): Applied before clouds are kept.
            (default: :obj:`None`)
        pre_filter (callable, optional): Whether to keep a cloud.
            (default: :obj:`None`)
        force_reload (bool, optional): Whether to make kept clouds again.
            (default: :obj:`False`)

    Raises:
        ValueError: If an argument makes no universe, or
            :obj:`pre_transform` or :obj:`pre_filter` cannot be told from
            others of its kind.
    """
    def __init__(
        self,
        root: str,
        split: str = 'train',
        num_clouds: int = 64,
        num_halos: int = 2000,
        box_size: float = 400.,
        grid_size: int = 64,
        bias: float = 1.,
        smoothing: float = 6.,
        redshift: float = 0.,
        cosmology: Cosmology | None = None,
        seed: int = 0,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        _check(num_clouds, num_halos, box_size, grid_size, smoothing,
               redshift)
        self.num_halos = num_halos
        self.box_size = float(box_size)
        self.grid_size = grid_size
        self.bias = float(bias)
        self.smoothing = float(smoothing)
        self.redshift = float(redshift)
        self.cosmology = Cosmology() if cosmology is None else cosmology
        super().__init__(root, split, num_clouds, seed, transform,
                         pre_transform, pre_filter, force_reload)

    def facts(self) -> tuple:
        return (self.num_halos, self.box_size, self.grid_size, self.bias,
                self.smoothing, self.redshift, self.cosmology)

    def make(self, i: int) -> Data:
        r"""Makes the :obj:`i`-th cloud of the split."""
        rng = self.generator(i)
        density = self._linear_density(rng)
        start = self._choose_places(density, rng)
        displacement, velocity = self._move(density)
        box = self.box_size
        pos = start + grid.interpolate(displacement, start, box)
        pos = torch.remainder(pos, box).float()
        return Data(
            pos=torch.where(pos >= box, 0., pos),  # rounded up
            y=grid.interpolate(velocity, start, box).float(),
            box=torch.full((1, 3), box),
        )

    def _linear_density(self, rng: torch.Generator) -> Tensor:
        r"""Draws a Gaussian field and returns its Fourier transform."""
        size, box = self.grid_size, self.box_size
        noise = torch.randn(size, size, size, generator=rng,
                            dtype=torch.float64)
        k = grid.square_length(grid.wave_vectors(size, box)).sqrt()
        power = self.cosmology.power(k, self.redshift)
        return torch.fft.rfftn(noise) * (power * (size / box)**3).sqrt()

    def _choose_places(self, density: Tensor, rng: torch.Generator) -> Tensor:
        r"""Draws cells by their density, and a place in each."""
        size, box = self.grid_size, self.box_size
        smoothed = grid.back(grid.smooth(density, box, self.smoothing))
        chance = (self.bias * (smoothed - smoothed.max())).exp().flatten()
        cell = torch.multinomial(chance, self.num_halos, generator=rng)
        corner = torch.stack([cell // size**2, cell // size % size,
                              cell % size], dim=1)
        shift = torch.rand(self.num_halos, 3, generator=rng,
                           dtype=torch.float64) - 0.5
        return torch.remainder((corner + shift) * (box / size), box)

    def _move(self, density: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns displacements in Mpc/h and velocities in km/s, on the
        grid.
        """
        box, z = self.box_size, self.redshift
        xx, yy, zz, xy, xz, yz = grid.second_derivatives(density, box)
        second = xx * yy + xx * zz + yy * zz - xy**2 - xz**2 - yz**2
        first = -grid.gradient_of_potential(density, box)
        second = -3 / 7 * grid.gradient_of_potential(
            torch.fft.rfftn(second), box)
        f1, f2 = (self.cosmology.growth_rate(z, order) for order in (1, 2))
        unit = self.cosmology.velocity_unit(z)
        return first + second, unit * (f1 * first + f2 * second)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'split={self.split!r}, num_halos={self.num_halos}, '
                f'box_size={self.box_size:g})')


def _check(num_clouds: int, num_halos: int, box_size: float,
           grid_size: int, smoothing: float, redshift: float) -> None:
    expect(num_clouds > 0, 'num_clouds', 'positive', num_clouds)
    expect(grid_size > 1 and grid_size % 2 == 0, 'grid_size',
           'positive and even', grid_size)
    expect(0 < num_halos <= grid_size**3, 'num_halos',
           f'at least 1 and at most the number of cells, {grid_size**3}',
           num_halos)
    expect(0 < box_size < float('inf'), 'box_size', 'a positive length',
           box_size)
    expect(0 <= smoothing < float('inf'), 'smoothing', 'a length', smoothing)
    expect(0 <= redshift < float('inf'), 'redshift', 'at least zero',
           redshift)
