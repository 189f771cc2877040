r"""Writes small files of cars: cubes in a grid of air."""

import itertools

import meshio
import numpy as np

CORNERS = ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0),
           (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1))
# The sides of a cube, seen from outside.
SIDES = ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5),
         (2, 3, 7, 6), (3, 0, 4, 7))


def number(place, corner=(0, 0, 0)):
    x, y, z = (a + b for a, b in zip(place, corner, strict=True))
    return x + 4 * y + 16 * z


def make_air(seed):
    r"""A grid of 27 cells, of which that in the middle, the car, is left
    out.
    """
    edge = np.array([-2.1, -.4, .7, 2.3], np.float32) + seed
    points = np.stack(np.meshgrid(edge, edge, edge, indexing='ij'), -1)
    points = points.transpose(2, 1, 0, 3).reshape(-1, 3)
    cells = [[number(place, corner) for corner in CORNERS]
             for place in itertools.product(range(3), repeat=3)
             if place != (1, 1, 1)]
    return points, np.array(cells)


def make_surface(seed):
    r"""The car: points in another order than in the air, two of no quad."""
    points = make_air(seed)[0][[number((1, 1, 1), c) for c in CORNERS]]
    order = np.random.default_rng(seed).permutation(10)
    padded = np.concatenate([points, np.full((2, 3), 9., np.float32)])
    quads = np.argsort(order)[np.array(SIDES)]
    return padded[order], quads


def write_mesh(path, points, kind, cells, **options):
    meshio.Mesh(points, [(kind, cells)]).write(path, **options)


def write_car(folder, seed, **options):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    points, quads = make_surface(seed)
    write_mesh(folder / 'quadpress_smpl.vtk', points, 'quad', quads,
               **options)
    np.save(folder / 'press.npy', rng.normal(-36, 48, 10).astype('f4'))
    points, cells = make_air(seed)
    write_mesh(folder / 'hexvelo_smpl.vtk', points, 'hexahedron', cells,
               **options)
    np.save(folder / 'velo.npy', rng.normal(size=3 * 64))
    (folder / 'cd.txt').write_text(f'0.{seed + 25}\n')
