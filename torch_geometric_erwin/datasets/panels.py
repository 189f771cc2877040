r"""Flat panels of sources: what each does to any place."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NEAR = 4.  # panels' diameters within which their integrals are exact
CHUNK = 128  # places at a time


class Panels(NamedTuple):
    r"""Quads, each laid into a plane through its center as Hess and Smith
    (1967) do.
    """
    center: Tensor  # (P, 3)
    normal: Tensor  # (P, 3), outward, of length one
    area: Tensor  # (P)
    corners: Tensor  # (P, 4, 3), counterclockwise seen from outside, flat
    nodes: Tensor  # (4, P, 3), of Gauss's formula
    weights: Tensor  # (4, P), areas of the nodes

    @classmethod
    def from_corners(cls, corners: Tensor) -> 'Panels':
        r"""Makes panels of corners of shape :math:`(P, 4, 3)`,
        counterclockwise seen from outside.
        """
        a, b, c, d = corners.unbind(1)
        center = corners.mean(dim=1)
        across = torch.linalg.cross(c - a, d - b) / 2
        area = across.norm(dim=1)
        normal = across / area[:, None]
        height = ((corners - center[:, None]) * normal[:, None]).sum(-1, True)
        flat = corners - height * normal[:, None]
        return cls(center, normal, area, flat, *_gauss(*flat.unbind(1)))


def _gauss(a: Tensor, b: Tensor, c: Tensor,
           d: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns four nodes on each quad, and their areas."""
    nodes, weights = [], []
    low, high = 0.5 - math.sqrt(1 / 12), 0.5 + math.sqrt(1 / 12)
    for u, v in ((low, low), (low, high), (high, low), (high, high)):
        along = (1 - v) * (b - a) + v * (c - d)
        across = (1 - u) * (d - a) + u * (c - b)
        nodes.append(a + u * (b - a) + v * across)
        weights.append(torch.linalg.cross(along, across).norm(dim=1) / 4)
    return torch.stack(nodes), torch.stack(weights)


def influence(panels: Panels, pos: Tensor,
              normal: Tensor) -> tuple[Tensor, Tensor]:
    r"""Computes the potentials of panels with a unit of source per area,

    .. math::
        \phi_{ij} = -\frac{1}{4 \pi} \int_{S_j} \frac{\mathrm{d} A}{\lVert
        \mathbf{x}_i - \mathbf{y} \rVert},

    and the velocities :math:`\mathbf{n}_i \cdot \nabla \phi_{ij}`: by Gauss's
    formula of four nodes, and exactly within four diameters of a panel.

    Args:
        panels: :math:`P` panels.
        pos: Places, of shape :math:`(M, 3)`; on a panel, its outer side.
        normal: Directions there, of shape :math:`(M, 3)`.

    Returns:
        Potentials and velocities, both of shape :math:`(M, P)`.
    """
    shape = (pos.size(0), panels.area.numel())
    potential, velocity = pos.new_empty(shape), pos.new_empty(shape)
    reach = NEAR**2 * torch.maximum(
        *(panels.corners[:, :2] - panels.corners[:, 2:]).square().sum(
            -1).unbind(1))
    for rows in torch.arange(pos.size(0)).split(CHUNK):
        x, n = pos[rows], normal[rows]
        here = slice(int(rows[0]), int(rows[-1]) + 1)
        _far(panels, x, n, potential[here], velocity[here])
        i, j = (_square_distance(x, panels.center) < reach).nonzero().t()
        potential[rows[i], j], velocity[rows[i], j] = exact_influence(
            x[i], n[i], panels.corners[j], panels.normal[j])
    return potential.mul_(-0.25 / math.pi), velocity.mul_(0.25 / math.pi)


def _square_distance(x: Tensor, y: Tensor) -> Tensor:
    square = torch.addmm(y.square().sum(1), x, y.t(), alpha=-2)
    return square.add_(x.square().sum(1, True)).clamp_(min=1e-30)


def _far(panels: Panels, x: Tensor, normal: Tensor, potential: Tensor,
         velocity: Tensor) -> None:
    r"""Writes integrals by Gauss's formula."""
    potential.zero_()
    velocity.zero_()
    height = (x * normal).sum(1, True)
    for node, weight in zip(panels.nodes, panels.weights, strict=True):
        inverse = _square_distance(x, node).rsqrt_()
        potential.addcmul_(inverse, weight)
        inverse.mul_(inverse.square()).mul_(weight)
        velocity.addcmul_(torch.addmm(height, normal, node.t(), alpha=-1),
                          inverse)


def exact_influence(pos: Tensor, direction: Tensor, corners: Tensor,
                    normal: Tensor) -> tuple[Tensor, Tensor]:
    r"""Integrates over flat polygons in closed form (Hess and Smith 1967; in
    the shape of Wilton et al., "Potential integrals for uniform and linear
    source distributions on polygonal and polyhedral domains", IEEE
    Transactions on Antennas and Propagation 32, 1984).

    Args:
        pos: Places :math:`\mathbf{x}`, of shape :math:`(E, 3)`.
        direction: Directions :math:`\mathbf{m}`, of shape :math:`(E, 3)`.
        corners: A polygon for each, of shape :math:`(E, K, 3)`,
            counterclockwise around its normal.
        normal: Its unit normal, of shape :math:`(E, 3)`.

    Returns:
        The integrals of :math:`1 / r` and of :math:`-\mathbf{m} \cdot \nabla
        (1 / r)`, both of shape :math:`(E)`.
    """
    height = ((pos - corners[:, 0]) * normal).sum(1)
    potential = torch.zeros_like(height)
    angle, velocity = torch.zeros_like(height), torch.zeros_like(height)
    for k in range(corners.size(1)):
        a, b = corners[:, k] - pos, corners[:, k - 1] - pos
        d, log, turn, outward = _edge(b, a, normal, height.abs())
        potential += d * log
        angle += turn
        velocity += (outward * direction).sum(1) * log
    potential -= height.abs() * angle
    # A panel's own center lies on its outer side, however it is rounded.
    side = torch.where(height > -1e-12 * corners[:, 0].sub(
        corners[:, 2]).norm(dim=1), 1., -1.)
    return potential, velocity + side * angle * (normal * direction).sum(1)


def _edge(a: Tensor, b: Tensor, normal: Tensor,
          height: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Returns how far an edge lies outward, its logarithm, the angle that
    it is seen under, and its direction outward.
    """
    length = (b - a).norm(dim=1).clamp(min=1e-300)
    along = (b - a) / length[:, None]
    outward = torch.linalg.cross(along, normal)
    d = (outward * a).sum(1)
    start, end = (along * a).sum(1), (along * b).sum(1)
    ra, rb = a.norm(dim=1), b.norm(dim=1)
    total = ra + rb
    log = ((total + length) / (total - length).clamp(min=1e-300)).log()
    square = d * d + height * height
    turn = (torch.atan2(d * end, square + height * rb) -
            torch.atan2(d * start, square + height * ra))
    return d, log, turn, outward
