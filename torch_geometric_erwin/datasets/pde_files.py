r"""Reads the four benchmarks of structural and fluid mechanics."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.datasets.array_files import (
    check_shape,
    find_file,
    open_npy,
)
from torch_geometric_erwin.datasets.mat_reader import open_mat

SOURCE = ('the benchmarks of Geo-FNO '
          '(https://github.com/neuraloperator/Geo-FNO)')
Stats = dict[str, tuple[Sequence[float], Sequence[float]]]


class Benchmark(NamedTuple):
    r"""What is fixed of a benchmark."""
    files: tuple[str, ...]
    num_train: int
    num_test: int
    test_is_last: bool
    grid: tuple[int, int] | None
    stats: Stats
    num_steps: int = 1


BENCHMARKS = {
    'airfoil': Benchmark(
        tuple(f'airfoil/naca/NACA_Cylinder_{x}.npy' for x in 'XYQ'),
        1000, 200, False, (221, 51),
        {'pos': ((1.4925, 3.4233e-4), (6.6607, 6.0777)),
         'y': ((0.8163, ), (0.1385, ))}),
    'elasticity': Benchmark(
        tuple(f'elasticity/Meshes/Random_UnitCell_{x}_10.npy'
              for x in ('XY', 'sigma')),
        1000, 200, True, None,
        {'pos': ((0.4998, 0.5003), (0.3217, 0.3216)),
         'y': ((187.7388, ), (127.0829, ))}),
    'pipe': Benchmark(
        tuple(f'pipe/Pipe_{x}.npy' for x in 'XYQ'),
        1000, 200, False, (128, 128),
        {'pos': ((4.9609, -0.0080), (2.8867, 0.5690)),
         'y': ((0.1667, ), (0.0805, ))}),
    'plasticity': Benchmark(
        ('plasticity/plas_N987_T20.mat', ),
        900, 80, True, (101, 31),
        {'x': ((19.6351, ), (2.3652, )), 'y': ((-4.4049, ), (14.3477, ))},
        20),
}
NUM_POINTS = 972
PIPE = (129, 129)
MACH, SPEED = 4, 0  # channels


class Grids:
    r"""Airfoils and pipes: coordinates and a field on grids."""
    def __init__(self, root: str, files: Sequence[str], grid: tuple[int, int],
                 stored: tuple[int, int], channel: int) -> None:
        self.grid, self.channel = grid, channel
        self.paths = [find_file(root, name, SOURCE) for name in files]
        self.num_samples = len(self.open(stored)[0])

    def open(self, stored: tuple[int, int]) -> list[np.ndarray]:
        x, y, fields = arrays = [open_npy(path) for path in self.paths]
        check_shape(self.paths[0], x, (None, *stored))
        check_shape(self.paths[1], y, (len(x), *stored))
        check_shape(self.paths[2], fields, (len(x), None, *stored))
        if fields.shape[1] <= self.channel:
            raise ValueError(f"Expected the array of {self.paths[2]!r} to "
                             f"have more than {self.channel} channels (got "
                             f"{fields.shape[1]})")
        return arrays

    def read(self, i: int, step: int) -> dict[str, Tensor]:
        x, y, fields = (open_npy(path) for path in self.paths)
        cut = tuple(slice(size) for size in self.grid)
        pos = np.stack([x[i][cut], y[i][cut]], axis=-1)
        return dict(pos=rows(pos, 2), y=rows(fields[i, self.channel][cut], 1))


class Cells:
    r"""Elasticity: points around a hole, and the stress at each."""
    def __init__(self, root: str, files: Sequence[str]) -> None:
        self.paths = [find_file(root, name, SOURCE) for name in files]
        pos, stress = (open_npy(path) for path in self.paths)
        check_shape(self.paths[0], pos, (NUM_POINTS, 2, None))
        self.num_samples = pos.shape[2]
        check_shape(self.paths[1], stress, (NUM_POINTS, self.num_samples))

    def read(self, i: int, step: int) -> dict[str, Tensor]:
        pos, stress = (open_npy(path) for path in self.paths)
        return dict(pos=rows(pos[..., i], 2), y=rows(stress[:, i], 1))


class Blocks:
    r"""Plasticity: the shape of a die, and a block under it at a time."""
    def __init__(self, root: str, files: Sequence[str], grid: tuple[int, int],
                 num_steps: int) -> None:
        self.grid = grid
        shapes = {'input': (None, grid[0]),
                  'output': (None, *grid, num_steps, 4)}
        self.file = open_mat(find_file(root, files[0], SOURCE), shapes)
        self.num_samples = self.file.num_samples

    def read(self, i: int, step: int) -> dict[str, Tensor]:
        height, width = self.grid
        down, along = np.meshgrid(np.linspace(0, 1, height),
                                  np.linspace(0, 1, width), indexing='ij')
        shape = self.file.read('input', i)
        return dict(pos=rows(np.stack([along, down], axis=-1), 2),
                    x=rows(shape.repeat(width), 1),
                    y=rows(self.file.read('output', i, step), 4),
                    time=torch.tensor([step]))


def open_benchmark(root: str, name: str) -> Grids | Cells | Blocks:
    files, grid = BENCHMARKS[name].files, BENCHMARKS[name].grid
    if grid is None:
        return Cells(root, files)
    if name == 'plasticity':
        return Blocks(root, files, grid, BENCHMARKS[name].num_steps)
    airfoil = name == 'airfoil'
    return Grids(root, files, grid, grid if airfoil else PIPE,
                 MACH if airfoil else SPEED)


def rows(array: np.ndarray, channels: int) -> Tensor:
    array = array.astype(np.float32).reshape(-1, channels)
    return torch.from_numpy(np.ascontiguousarray(array))

