r"""Writes small files of the PDE benchmarks."""

import h5py
import numpy as np
from scipy.io import savemat

SAMPLES = 5
NAMES = ('airfoil', 'elasticity', 'pipe', 'plasticity')
FIELDS = {'airfoil': ('airfoil/naca/NACA_Cylinder', (221, 51), 4),
          'pipe': ('pipe/Pipe', (129, 129), 0)}
CELLS = 'elasticity/Meshes/Random_UnitCell_{}_10.npy'
MAT = 'plasticity/plas_N987_T20.mat'


def draw(*shape):
    rng = np.random.default_rng(sum(shape))
    return rng.normal(size=shape).astype('f4')


def save(root, name, array):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(root / name, array)


def write_grids(root, name):
    prefix, grid, channel = FIELDS[name]
    x, y = draw(SAMPLES, *grid).astype('f8'), draw(SAMPLES, *grid) + 1
    fields = draw(SAMPLES, channel + 1, *grid)
    for key, value in zip('XYQ', (x, y, fields), strict=True):
        save(root, f'{prefix}_{key}.npy', value)
    return x, y, fields


def write_cells(root):
    pos, stress = draw(972, 2, SAMPLES), draw(972, SAMPLES)
    save(root, CELLS.format('XY'), pos)
    save(root, CELLS.format('sigma'), stress)
    return pos, stress


def write_mat(root, new=False, **changes):
    arrays = {'input': draw(SAMPLES, 101),
              'output': draw(SAMPLES, 101, 31, 20, 4)}
    arrays = {key: value for key, value in {**arrays, **changes}.items()
              if value is not None}
    path = root / MAT
    path.parent.mkdir(parents=True, exist_ok=True)
    if not new:
        savemat(path, arrays)
        return arrays
    with h5py.File(path, 'w', userblock_size=512) as file:
        for key, value in arrays.items():
            file[key] = value.T
    with open(path, 'r+b') as file:  # as MATLAB does
        file.write(b'MATLAB 7.3 MAT-file')
    return arrays


def write(root, name):
    if name in FIELDS:
        return write_grids(root, name)
    return write_cells(root) if name == 'elasticity' else write_mat(root)
