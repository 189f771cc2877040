r"""Against exact solutions."""

import math

import numpy as np
import pytest

from torch_geometric_erwin.datasets import plane_stress
from torch_geometric_erwin.datasets.perforated_plates import clamp, pull

RIM = 4.  # of a ring around a hole of radius one


def ring(n, m):
    r"""A ring of m circles with n points each, the inner one first."""
    angle = 2 * math.pi * np.arange(n) / n
    ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.geomspace(1, RIM, m)[:, None, None] * ray
    start, i = n * np.arange(m - 1)[:, None], np.arange(n)
    a, b = (start + i).ravel(), (start + (i + 1) % n).ravel()
    triangles = np.concatenate([np.stack([a, a + n, b + n], axis=1),
                                np.stack([a, b + n, b], axis=1)])
    return points.reshape(-1, 2), triangles


def square(n):
    x, y = np.meshgrid(*[np.linspace(0, 1, n + 1)] * 2)
    i = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    triangles = np.concatenate([np.stack([i, i + 1, i + n + 2], axis=1),
                                np.stack([i, i + n + 2, i + n + 1], axis=1)])
    return np.stack([x.ravel(), y.ravel()], axis=1), triangles


def kirsch(x):
    r"""Stresses beside a circular hole of radius one in a plate without end,
    under a tension of one along the y axis (Kirsch 1898).
    """
    angle, q = np.arctan2(x[0], x[1]), 1 / (x[0]**2 + x[1]**2)
    c2, c4 = np.cos(2 * angle), np.cos(4 * angle)
    s2, s4 = np.sin(2 * angle), np.sin(4 * angle)
    xx = -q * (c2 / 2 - c4) - 1.5 * q**2 * c4
    yy = 1 - q * (1.5 * c2 + c4) + 1.5 * q**2 * c4
    return np.stack([xx, yy, -q * (s2 / 2 + s4) + 1.5 * q**2 * s4])


def solve_ring(n, m, **kwargs):
    def traction(x, normal):
        xx, yy, xy = kirsch(x) * (np.linalg.norm(x, axis=0) > RIM / 2)
        return np.stack([xx * normal[0] + xy * normal[1],
                         xy * normal[0] + yy * normal[1]])

    def circle(x):
        radius = np.linalg.norm(x, axis=1, keepdims=True)
        return np.where(radius < RIM / 2, 1, RIM) / radius * x

    points, triangles = ring(n, m)
    found = plane_stress(points, triangles, traction,
                         lambda x: abs(x) < 1e-9, circle, **kwargs)
    return points, found


def test_a_circular_hole_triples_the_stress():
    errors = []
    for n, m in ((16, 5), (32, 9), (64, 17)):
        points, found = solve_ring(n, m, refinements=0)
        errors.append(abs(found.stress - kirsch(points.T).T).max())
        assert abs(found.reaction).max() < 1e-12  # held only by symmetry
    assert errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3
    assert errors[2] < 0.025


@pytest.mark.parametrize('poisson', [0., 0.5])
def test_hoop_stress(poisson):
    r"""One and twice the angle: 1 + 2 cos, minus one on top, three aside;
    across the rim there is none.
    """
    points, found = solve_ring(32, 9, poisson=poisson)
    angle = 2 * math.pi * np.arange(32) / 32
    hoop = 1 + 2 * np.cos(2 * angle)
    assert np.allclose(found.von_mises[:32], abs(hoop), atol=0.03)
    assert found.von_mises[0] == pytest.approx(3, abs=0.03)
    xx, yy, xy = found.stress[:32].T
    x, y = points[:32].T
    assert np.allclose(xx * x + xy * y, 0, atol=0.03)
    assert np.allclose(xy * x + yy * y, 0, atol=0.03)


def test_a_bar_is_under_the_same_stress_everywhere():
    r"""Which may shrink to the sides, or of a material that does not."""
    points, triangles = square(3)

    def slide(x):
        return np.stack([(x[0] < 1e-9) & (x[1] < 1e-9), x[1] < 1e-9])

    for held, poisson in ((slide, 0.5), (slide, 0.3), (clamp, 0.)):
        found = plane_stress(points, triangles, pull, held, poisson=poisson)
        assert np.allclose(found.stress, [0., 1., 0.], atol=1e-9)
        assert np.allclose(found.von_mises, 1.)
        assert np.allclose(found.reaction, [0., -1.])


@pytest.mark.parametrize('poisson', [-0.3, 0.3, 0.5])
def test_a_bar_between_walls_pulls_at_them(poisson):
    def walls(x):
        return np.stack([(x[0] < 1e-9) | (x[0] > 1 - 1e-9), x[1] < 1e-9])

    found = plane_stress(*square(3), pull, walls, poisson=poisson)
    assert np.allclose(found.stress, [poisson, 1., 0.], atol=1e-9)


def test_von_mises_of_shear():
    def corners(x):
        left, right, low = x[0] < 1e-9, x[0] > 1 - 1e-9, x[1] < 1e-9
        return np.stack([left & low, (left | right) & low])

    found = plane_stress(*square(2), lambda x, normal: normal[::-1], corners)
    assert np.allclose(found.stress, [0., 0., 1.], atol=1e-9)
    assert np.allclose(found.von_mises, math.sqrt(3))


@pytest.mark.parametrize('changes, name', [
    ({'points': np.zeros((4, 3))}, 'points'),
    ({'triangles': np.zeros((4, 2), dtype=int)}, 'triangles'),
    ({'triangles': np.array([[0, 1, 4], [0, 4, 3], [1, 2, 9]])}, 'triangles'),
    ({'triangles': square(1)[1][:, ::-1]}, 'triangles'),
    ({'held': lambda x: np.zeros(x.shape, dtype=bool)}, 'held'),
    ({'curve': lambda x: x + 1.}, 'curve'),
    ({'poisson': 0.6}, 'poisson'),
    ({'poisson': -1.}, 'poisson'),
    ({'refinements': -1}, 'refinements'),
])
def test_bad_arguments(changes, name):
    points, triangles = square(1)
    kwargs = dict(points=points, triangles=triangles, traction=pull,
                  held=clamp, refinements=0)
    with pytest.raises(ValueError, match=f"Expected '{name}' to be .*got"):
        plane_stress(**{**kwargs, **changes})
