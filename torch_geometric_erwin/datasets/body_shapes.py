r"""Random closed bodies with the shape of cars."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_geometric_erwin.datasets.quad_mesh import box_mesh, quads_around

RANGES = {  # lengths in m, the rest in parts of the body
    'length': (3.6, 5.), 'width': (1.6, 2.), 'height': (1.05, 1.6),
    'clearance': (0.12, 0.25), 'roundness': (3.5, 6.),
    'hood': (0.5, 0.75), 'boot': (0.55, 0.95),
    'windscreen': (0.15, 0.3), 'windscreen_length': (0.18, 0.35),
    'rear_window': (0.6, 0.8), 'rear_window_length': (0.2, 0.4),
    'nose': (0., 0.3), 'tail': (0., 0.25), 'tumblehome': (0.05, 0.25),
    'diffuser': (0., 0.2), 'wheel_depth': (0.1, 0.25),
    'wheel_radius': (0.3, 0.4),
}


@dataclass(frozen=True)
class BodyShape:
    r"""A rounded box that is bent to a car. It heads to :math:`-x` and stands
    on :math:`z = 0`.

    The surface :math:`|u|^p + |v|^p + |w|^p = 1` is moved by one coordinate
    after the other, each growing with itself whatever the others are. So no
    two of its points fall together: the body is closed and does not cut
    itself.

    Args:
        length: Along :math:`x`, in m.
        width: Along :math:`y`, in m.
        height: From floor to roof, in m.
        clearance: From the ground to the lowest point, in m.
        roundness: The exponent :math:`p`: 2 is an ellipsoid, and the more,
            the more of a box.
        hood: Height of the hood, of the body's.
        boot: Height of the tail, of the body's.
        windscreen: Where the windscreen begins, of the length.
        windscreen_length: How far it goes, of the length.
        rear_window: Where the rear window begins, of the length.
        rear_window_length: How far it goes, of the length.
        nose: How much narrower the nose is.
        tail: How much narrower the tail is.
        tumblehome: How much narrower the roof is.
        diffuser: How far the floor rises at the tail, of the height.
        wheel_depth: How far four wheels reach below the floor, in m.
        wheel_radius: Of these bumps, in m.
    """
    length: float = 4.3
    width: float = 1.8
    height: float = 1.3
    clearance: float = 0.18
    roundness: float = 4.5
    hood: float = 0.62
    boot: float = 0.72
    windscreen: float = 0.22
    windscreen_length: float = 0.25
    rear_window: float = 0.68
    rear_window_length: float = 0.28
    nose: float = 0.15
    tail: float = 0.1
    tumblehome: float = 0.15
    diffuser: float = 0.1
    wheel_depth: float = 0.17
    wheel_radius: float = 0.35

    @classmethod
    def draw(cls, rng: torch.Generator) -> 'BodyShape':
        r"""Draws each argument evenly from its range in :obj:`RANGES`."""
        chance = torch.rand(len(RANGES), generator=rng, dtype=torch.float64)
        return cls(**{name: low + (high - low) * x for (name, (
            low, high)), x in zip(RANGES.items(), chance.tolist(),
                                  strict=True)})

    def mesh(self, num_panels: int) -> tuple[Tensor, Tensor]:
        r"""Returns vertices of shape :math:`(V, 3)` in m, float64, and about
        :obj:`num_panels` quads of shape :math:`(P, 4)`, counterclockwise seen
        from outside. Their number is the same for all shapes.
        """
        box, quads = box_mesh(panel_counts(num_panels))
        box = box / box.abs().pow(self.roundness).sum(1, True).pow(
            1 / self.roundness)
        return self._bend(*box.unbind(1)), quads

    def _bend(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        s, t = (u + 1) / 2, (w + 1) / 2
        x = self.length * (s - 0.5)
        plan = 1 - self.nose * (1 - s)**4 - self.tail * s**4
        y = self.width / 2 * v * plan * (
            1 - self.tumblehome * _ramp((t - 0.4) / 0.6))
        floor = self._floor(s, v, x)
        z = floor + t * (self.height * self._roof(s) - floor)
        return torch.stack([x, y, z - z.min() + self.clearance], dim=1)

    def _roof(self, s: Tensor) -> Tensor:
        r"""Returns how high the body is along its length, of its height."""
        front = _ramp((s - self.windscreen) / self.windscreen_length)
        rear = _ramp((s - self.rear_window) / self.rear_window_length)
        top = self.hood + (1 - self.hood) * front
        return top + (self.boot - top) * rear

    def _floor(self, s: Tensor, v: Tensor, x: Tensor) -> Tensor:
        r"""Returns the height of the floor in m, zero at its middle."""
        rise = self.diffuser * self.height * _ramp((s - 0.75) / 0.25)
        axle = self.length * 0.31
        wheel = torch.exp(-((x.abs() - axle) / self.wheel_radius)**4)
        side = torch.exp(-((v.abs() - 0.75) / 0.2)**4)
        return rise - self.wheel_depth * wheel * side


def _ramp(x: Tensor) -> Tensor:
    r"""Rises from 0 to 1 between 0 and 1, with slope zero at both."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def panel_counts(num_panels: int) -> tuple[int, int, int]:
    r"""Divides the sides of a box as long, wide and high as most cars so
    that about :obj:`num_panels` panels are about as long as wide.
    """
    length, width, height = 4.6, 2., 1.5  # with what curves add
    step = (2 * (length * width + width * height + height * length) /
            num_panels)**0.5
    ny, nz = (max(2, round(size / step)) for size in (width, height))
    nx = max(2, round((num_panels / 2 - ny * nz) / (ny + nz)))
    return nx, ny, nz


def is_sound(vertices: Tensor, quads: Tensor) -> bool:
    r"""Tells whether a mesh resolves its surface: whether no panel is folded
    or turns away from a neighbor by a right angle or more.
    """
    a, b, c, d = vertices[quads].unbind(1)
    across = torch.linalg.cross(c - a, d - b)
    corners = torch.stack([
        torch.linalg.cross(q - p, r - p) for p, q, r in (
            (a, b, d), (b, c, a), (c, d, b), (d, a, c))])
    i, j = quads_around(quads)
    return bool(((corners * across).sum(-1) > 0).all() and
                ((across[i] * across[j]).sum(-1) > 0).all())
