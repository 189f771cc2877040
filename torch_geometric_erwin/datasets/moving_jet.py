import os
import os.path as osp
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_geometric_erwin.datasets.drawn import expect
from torch_geometric_erwin.datasets.eagle import EAGLE, FILES, WINDOWS
from torch_geometric_erwin.datasets.fingerprint import fingerprint
from torch_geometric_erwin.datasets.jet_scene import (
    Scene,
    draw_scene,
    make_mesh,
    node_types,
)
from torch_geometric_erwin.datasets.lattice_boltzmann import LatticeBoltzmann

CELL = 0.05  # m
DENSITY = 1.2  # kg / m³
UNIT = 50.  # m/s for each cell a step
VISCOSITY = 0.012  # in units of the lattice
FORCE = 2e-3
STRIDE = 2  # cells between nodes


class MovingJet(EAGLE):
    r"""Unsteady air below a fan that flies over uneven ground, in two
    dimensions: the task of :class:`~torch_geometric_erwin.datasets.EAGLE`
    without its files. They are made by a :class:`lattice-Boltzmann solver
    <torch_geometric_erwin.datasets.lattice_boltzmann.LatticeBoltzmann>` and
    kept in EAGLE's format, which that class reads, too.

    Grounds are steps, a triangle, or waves; the sides and the top are open.
    The fan pushes air downwards as it flies to and fro. Nodes lie irregularly
    and do not move. What a sample holds is said there, in units of m, m/s and
    Pa: PS is the static pressure, less that of the surrounding air, and PG
    the total one, :math:`p + \rho v^2 / 2`. Nodes in the fan are inlets.

    Args:
        root (str): Where to keep the simulations.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or
            :obj:`"test"`: simulations that share nothing.
            (default: :obj:`"train"`)
        num_simulations (int, optional): Their number. (default: :obj:`16`)
        num_steps (int, optional): Number of steps that are kept of each.
            (default: :obj:`120`)
        interval (int, optional): Steps of the solver for each of these, of
            one millisecond. (default: :obj:`32`)
        shape (tuple, optional): Number of cells of 5 cm, upwards and to the
            side. (default: :obj:`(96, 192)`)
        window (int, optional): Number of steps of a sample. (default: that
            of the base class, or all where there are fewer)
        start (int or str, optional): The step to begin with.
            (default: :obj:`"random"` for training, else :obj:`0`)
        seed (int, optional): Another one makes other simulations.
            (default: :obj:`0`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        ValueError: If an argument makes no flow, or no window.
    """
    def __init__(
        self,
        root: str,
        split: str = 'train',
        num_simulations: int = 16,
        num_steps: int = 120,
        interval: int = 32,
        shape: tuple[int, int] = (96, 192),
        window: int | None = None,
        start: int | str | None = None,
        seed: int = 0,
        transform: Callable | None = None,
    ) -> None:
        expect(split in FILES, 'split', f'one of {list(FILES)}', split)
        expect(num_simulations > 0, 'num_simulations', 'positive',
               num_simulations)
        expect(num_steps > 0, 'num_steps', 'positive', num_steps)
        expect(interval > 0, 'interval', 'positive', interval)
        expect(len(shape) == 2 and min(shape) >= 32, 'shape',
               'two numbers of at least 32 cells', shape)
        self.num_steps, self.interval = num_steps, interval
        self.shape, self.seed = (shape[0], shape[1]), seed
        key = fingerprint(type(self), num_steps, interval, self.shape, seed)
        folder = osp.join(os.fspath(root), key)
        self._make(folder, split, num_simulations)
        if start is None and split != 'train':
            start = 0
        window = min(WINDOWS[split], num_steps) if window is None else window
        super().__init__(folder, split, window, start, transform)
        self.simulations = self.simulations[:num_simulations]

    def _make(self, folder: str, split: str, number: int) -> None:
        r"""Makes the simulations that are not there yet."""
        names = [f'{split}_{i:04d}' for i in range(number)]
        for i, name in enumerate(names):
            if not osp.isfile(osp.join(folder, name, 'sim.npz')):
                write(osp.join(folder, name), *self.simulate(split, i))
        os.makedirs(osp.join(folder, 'Splits'), exist_ok=True)
        path = osp.join(folder, 'Splits', f'{FILES[split]}.txt')
        listed = []
        if osp.isfile(path):
            with open(path) as file:
                listed = file.read().split()
        if len(listed) < number:
            with open(path, 'w') as file:
                file.write('\n'.join(names) + '\n')

    def simulate(self, split: str,
                 i: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        r"""Returns the arrays of the :obj:`i`-th simulation of a split, and
        its triangles.
        """
        words = [self.seed, list(FILES).index(split), i]
        state = np.random.SeedSequence(words).generate_state(1, np.uint64)
        rng = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        steps = self.num_steps * self.interval
        scene = draw_scene(self.shape, steps, rng)
        pos, faces = make_mesh(scene.solid, STRIDE, rng)
        frames = []
        for step, fields in flow(scene, steps):
            if step % self.interval == self.interval - 1:
                types = node_types(scene, pos, step, STRIDE)
                frames.append((physical(*sample(fields, pos)), types))
        values = torch.stack([x for x, _ in frames]).numpy()
        if not np.isfinite(values).all():
            raise RuntimeError(f"Expected the flow to stay finite (got other "
                               f"numbers in simulation {i} of {split!r})")
        arrays = dict(zip(('VX', 'VY', 'PS', 'PG'), np.moveaxis(values, 1, 0),
                          strict=True))
        arrays['mask'] = torch.stack([x for _, x in frames]).numpy().astype(
            np.int8)
        arrays['pointcloud'] = np.broadcast_to(
            (pos * CELL).float().numpy(), (len(frames), *pos.shape))
        return arrays, np.broadcast_to(
            faces.int().numpy(), (len(frames), *faces.shape))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'split={self.split!r}, window={self.window}, '
                f'num_steps={self.num_steps})')


def flow(scene: Scene, num_steps: int) -> Iterator[tuple[int, Tensor]]:
    r"""Yields each step's number and the density and velocity on the grid,
    :math:`(3, H, W)`.
    """
    solver = LatticeBoltzmann(scene.solid, VISCOSITY, openings(scene.solid))
    for step in range(num_steps):
        force = torch.zeros(2, *scene.solid.shape)
        force[1][scene.fan(step) & ~scene.solid] = -FORCE
        solver.step(force)
        density, velocity = solver.fields(force)
        yield step, torch.cat([density[None], velocity])


def openings(solid: Tensor) -> Tensor:
    r"""Which cells let air in and out: the sides and the top."""
    opening = torch.zeros_like(solid)
    opening[:, [0, -1]] = True
    opening[-1] = True
    return opening & ~solid


def physical(density: Tensor, *velocity: Tensor) -> Tensor:
    r"""Returns velocities in m/s and pressures in Pa, :math:`(4, N)`."""
    speed = torch.stack(velocity) * UNIT
    static = DENSITY * UNIT**2 * (density - 1) / 3
    total = static + 0.5 * DENSITY * speed.square().sum(0)
    return torch.stack([*speed, static, total])


def sample(fields: Tensor, pos: Tensor) -> Tensor:
    r"""Interpolates fields :math:`(F, H, W)` at positions in cells, shape
    :math:`(F, N)`.
    """
    size = pos.new_tensor([fields.size(2) - 1, fields.size(1) - 1])
    grid = (2 * pos / size - 1).view(1, 1, -1, 2).to(fields.dtype)
    return F.grid_sample(fields[None], grid, align_corners=True,
                         padding_mode='border')[0, :, 0]


def write(folder: str, arrays: dict[str, np.ndarray],
          triangles: np.ndarray) -> None:
    r"""Writes a simulation, the file that tells that it is complete last."""
    os.makedirs(folder, exist_ok=True)
    np.save(osp.join(folder, 'triangles.npy'), triangles)
    path = osp.join(folder, 'sim.npz')
    np.savez(f'{path}.tmp.npz', **arrays)  # type: ignore[arg-type]
    os.replace(f'{path}.tmp.npz', path)
