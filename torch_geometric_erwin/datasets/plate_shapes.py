r"""Random holes in the unit square."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

NUM_WAVES = 6  # around a hole of size one
SIZES = (0.55, 0.9)  # of holes beside others, for as much void in all
GAP = 0.08  # between holes, and to the sides
MOST = 9  # as many still find room
TRIES = 200


@dataclass(frozen=True)
class Hole:
    r"""A hole whose outline meets each ray from its center once, at

    .. math::
        r(\theta) = s \left( 0.2 + \frac{0.2}{1 + e^{g(\theta)}} \right),
        \quad g(\theta) = \sum_{k=0}^{K} a_k \cos k \theta +
        b_k \sin k \theta

    Args:
        center: Of shape :math:`(2)`.
        size: The scale :math:`s`.
        waves: :math:`a_k` and :math:`b_k`, of shape :math:`(2, K + 1)`; all
            zero are a circle of radius :math:`0.3 s`.
    """
    center: np.ndarray
    size: float
    waves: np.ndarray

    @classmethod
    def draw(cls, size: float, rng: torch.Generator) -> 'Hole':
        r"""Draws an outline around the middle of the square: :math:`g` is
        Gaussian with covariance :math:`4^2 (-\Delta + 3^2)^{-1}` on the unit
        circle, as in the `"Fourier Neural Operator with Learned Deformations
        for PDEs on General Geometries" <https://arxiv.org/abs/2207.05209>`_
        paper, but without waves shorter than a sixth of the way around a
        hole of size one. Smaller ones have fewer, so that all are as smooth.
        """
        k = np.arange(max(2, round(NUM_WAVES * size)) + 1)
        scale = 4 / np.sqrt(math.pi * (k**2 + 9))
        scale[0] /= math.sqrt(2)
        chance = torch.randn(2, len(k), generator=rng, dtype=torch.float64)
        return cls(np.full(2, 0.5), size, scale * chance.numpy())

    def radius(self, angle: np.ndarray) -> np.ndarray:
        turns = np.arange(self.waves.shape[1]) * angle[..., None]
        height = np.cos(turns) @ self.waves[0] + np.sin(turns) @ self.waves[1]
        return self.size * (0.2 + 0.2 / (1 + np.exp(height)))

    def outline(self, step: float) -> np.ndarray:
        r"""Returns points about :obj:`step` apart, evenly along the outline,
        counterclockwise, of shape :math:`(n, 2)`.
        """
        angle = np.linspace(0, 2 * math.pi, 1001)
        points = self._place(angle)
        way = np.r_[0, np.linalg.norm(np.diff(points, axis=0), axis=1)]
        way = way.cumsum()
        num_points = max(8, round(way[-1] / step))
        ends = np.linspace(0, way[-1], num_points, endpoint=False)
        return self._place(np.interp(ends, way, angle))

    def excess(self, points: np.ndarray) -> np.ndarray:
        r"""Returns how far points :math:`(n, 2)` are from the outline, along
        the ray from the center: negative inside the hole.
        """
        arm = points - self.center
        return np.linalg.norm(arm, axis=1) - self.radius(_angle(arm))

    def snap(self, points: np.ndarray) -> np.ndarray:
        r"""Moves points to the outline, along the ray from the center."""
        return self._place(_angle(points - self.center))

    def _place(self, angle: np.ndarray) -> np.ndarray:
        ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return self.center + self.radius(angle)[:, None] * ray


def draw_holes(count: int, rng: torch.Generator) -> list[Hole]:
    r"""Draws a hole in the middle, or several smaller ones anywhere."""
    if count == 1:
        return [Hole.draw(1., rng)]
    while True:  # the first ones may leave no room
        holes: list[Hole] = []
        for _ in range(TRIES):
            hole = _draw_small_hole(count, rng)
            if _has_room(hole, holes):
                holes.append(hole)
            if len(holes) == count:
                return holes


def _draw_small_hole(count: int, rng: torch.Generator) -> Hole:
    low, high = SIZES
    chance, *center = torch.rand(3, generator=rng).tolist()
    hole = Hole.draw((low + (high - low) * chance) / count**0.5, rng)
    return replace(hole, center=np.array(center))


def _has_room(hole: Hole, others: list[Hole]) -> bool:
    points = hole.outline(GAP / 4)
    return bool(min(points.min(), 1 - points.max()) >= GAP and all(
        np.linalg.norm(points[:, None] - other.outline(GAP / 4), axis=2).min()
        >= GAP for other in others))


def _angle(arm: np.ndarray) -> np.ndarray:
    return np.arctan2(arm[:, 1], arm[:, 0])
