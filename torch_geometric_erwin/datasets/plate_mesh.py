r"""Meshes of a square plate with holes."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from torch_geometric_erwin.datasets.array_files import import_optional
from torch_geometric_erwin.datasets.meshes import TRIANGLE
from torch_geometric_erwin.datasets.plate_shapes import Hole

ROUNDS = 40  # of relaxation
NEAR = 0.6  # how near to an outline inner points begin, in steps
BEND = 0.12  # how far an outline may be from a side, of its length
SIDE = 1e-9  # how near to a side points on it are


def mesh_plate(holes: Sequence[Hole], num_points: int,
               rng: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns :obj:`num_points` points of the unit square without its holes,
    of shape :math:`(N, 2)`, evenly spread, and triangles between them,
    counterclockwise, of shape :math:`(T, 3)`. Those on sides and outlines
    come first.

    Inner points begin as a Sobol sequence and move to the middle of the
    triangles around them, time and again: Laplacian smoothing with weights,
    and a Delaunay triangulation each time.

    Raises:
        RuntimeError: If the triangles do not end at sides and outlines, for
            want of points.
    """
    step = spacing(holes, num_points)
    rims = [_square(step)] + [hole.outline(step) for hole in holes]
    rim = np.concatenate(rims)
    points = np.concatenate([rim, _scatter(
        holes, rim, num_points - len(rim), NEAR * step, rng)])
    for _ in range(ROUNDS):
        triangles = _triangulate(points, holes)
        points[len(rim):] = _middles(points, triangles, len(rim))
    triangles = _triangulate(points, holes)
    _check(rims, triangles)
    return points, triangles


def spacing(holes: Sequence[Hole], num_points: int) -> float:
    r"""Returns how far points are apart. Inner ones have a hexagon each, of
    area :math:`\sqrt{3} h^2 / 2`, and those on sides and outlines half one.
    """
    area, length = 1., 4.
    for hole in holes:
        points = hole.outline(1e-3)
        following = np.roll(points, -1, axis=0)
        length += np.linalg.norm(following - points, axis=1).sum()
        area -= (points[:, 0] * following[:, 1] -
                 points[:, 1] * following[:, 0]).sum() / 2
    b, c = length / 2, 2 * area / math.sqrt(3)
    return (b + math.sqrt(b**2 + 4 * num_points * c)) / (2 * num_points)


def is_resolved(holes: Sequence[Hole], num_points: int) -> bool:
    r"""Tells whether outlines, drawn by as many points, bend by little from
    one to the next: by how far they are from the straight line midway.
    """
    step = spacing(holes, num_points)
    for hole in holes:
        points = hole.outline(step)
        sides = np.roll(points, -1, axis=0) - points
        middle = points + sides / 2
        bend = np.linalg.norm(hole.snap(middle) - middle, axis=1)
        if np.any(bend > BEND * np.linalg.norm(sides, axis=1)):
            return False
    return True


def curve(points: np.ndarray, holes: Sequence[Hole]) -> np.ndarray:
    r"""Moves points near outlines, of shape :math:`(n, 2)`, to the nearest
    one, and leaves those on the sides of the square.
    """
    if not holes:
        return points
    moved = np.stack([hole.snap(points) for hole in holes])
    nearest = np.linalg.norm(moved - points, axis=2).argmin(axis=0)
    inner = np.all((points > SIDE) & (points < 1 - SIDE), axis=1)
    return np.where(inner[:, None], moved[nearest, np.arange(len(points))],
                    points)


def _square(step: float) -> np.ndarray:
    count = round(1 / step)
    x, zero = np.arange(count) / count, np.zeros(count)
    return np.concatenate([np.stack(side, axis=1) for side in (
        (x, zero), (1 + zero, x), (1 - x, 1 + zero), (zero, 1 - x))])


def _scatter(holes: Sequence[Hole], rim: np.ndarray, count: int, gap: float,
             rng: torch.Generator) -> np.ndarray:
    r"""Draws points that are further than :obj:`gap` from the rim."""
    spatial = import_optional('scipy.spatial', 'PerforatedPlates')
    seed = int(torch.randint(2**31, (1, ), generator=rng))
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)
    points = np.empty((0, 2))
    tree = spatial.cKDTree(rim)
    while len(points) < count:
        more = sobol.draw(count, dtype=torch.float64).numpy()
        more = more[_outside(more, holes) & (tree.query(more)[0] > gap)]
        points = np.concatenate([points, more])
    return points[:count]


def _outside(points: np.ndarray, holes: Sequence[Hole]) -> np.ndarray:
    outside = np.ones(len(points), dtype=bool)
    for hole in holes:
        outside &= hole.excess(points) > 0
    return outside


def _triangulate(points: np.ndarray, holes: Sequence[Hole]) -> np.ndarray:
    spatial = import_optional('scipy.spatial', 'PerforatedPlates')
    triangles = spatial.Delaunay(points).simplices
    triangles = triangles[_outside(points[triangles].mean(1), holes)]
    area = abs(signed_area(points, triangles))
    triangles = triangles[area > SIDE]  # none along a straight side
    return np.where(signed_area(points, triangles)[:, None] > 0, triangles,
                    triangles[:, ::-1])


def signed_area(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    r"""Returns the areas of triangles, positive if counterclockwise."""
    a, b, c = points[triangles].transpose(1, 2, 0)
    return ((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]) / 2


def _middles(points: np.ndarray, triangles: np.ndarray,
             start: int) -> np.ndarray:
    r"""Returns the middle of the triangles around each point, from
    :obj:`start` on.
    """
    corners, middle = triangles.ravel(), points[triangles].mean(1)
    weight = signed_area(points, triangles)
    columns = [np.bincount(corners, value.repeat(3), len(points))[start:]
               for value in (weight, *(weight * middle.T))]
    return np.stack(columns[1:], axis=1) / columns[0][:, None]


def _check(rims: Sequence[np.ndarray], triangles: np.ndarray) -> None:
    r"""Checks that edges of a single triangle are those along the rims."""
    edges = np.sort(triangles[:, np.array(TRIANGLE)].reshape(-1, 2), axis=1)
    edges, times = np.unique(edges, axis=0, return_counts=True)
    starts = np.cumsum([0] + [len(rim) for rim in rims])
    wanted = np.concatenate([np.stack([ids, np.roll(ids, -1)], axis=1)
                             for ids in map(np.arange, starts, starts[1:])])
    wanted = np.unique(np.sort(wanted, axis=1), axis=0)
    if not np.array_equal(edges[times == 1], wanted):
        raise RuntimeError(f'{triangles.max() + 1} points do not resolve a '
                           f'plate with {len(rims) - 1} holes')
