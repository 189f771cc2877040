r"""Potential flow around closed bodies by panels of sources."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_erwin.datasets.drawn import expect
from torch_geometric_erwin.datasets.panels import Panels, influence
from torch_geometric_erwin.datasets.quad_mesh import (
    quads_around,
    surface_gradient,
)


class Flow(NamedTuple):
    r"""The flow at the centers of :math:`P` panels."""
    panels: Panels
    source: Tensor  # (P), per area, in units of the onflow
    velocity: Tensor  # (P, 3), along the surface, in units of the onflow
    pressure: Tensor  # (P), coefficients 1 - |v|^2 / |U|^2


def potential_flow(vertices: Tensor, quads: Tensor, body: Tensor,
                   onflow: Tensor, ground: bool = False) -> Flow:
    r"""Solves for the potential flow around closed bodies with panels of
    constant sources (Hess and Smith, "Calculation of potential flow about
    arbitrary bodies", Progress in Aerospace Sciences 8, 1967). Sources
    :math:`\sigma` make up for the onflow :math:`\mathbf{U}` that would cross
    the surface,

    .. math::
        \sum_j A_{ij} \sigma_j = -\mathbf{U} \cdot \mathbf{n}_i, \qquad
        A_{ij} = \frac{1}{4 \pi} \int_{S_j} \frac{\mathbf{n}_i \cdot
        (\mathbf{x}_i - \mathbf{y})}{\lVert \mathbf{x}_i - \mathbf{y}
        \rVert^3} \, \mathrm{d} A,

    at the panels' centers, which is solved in float64. Flat panels leave out
    what a bent one does to its own center, an error of first order in its
    size. The diagonal makes up for it: all that a panel emits has to leave
    its body, :math:`\sum_i a_i A_{ij} = a_j` with areas :math:`a`, which is
    how :math:`A_{jj}` is set. The sources of a single body then add up to
    zero, and errors are of second order: on a sphere of 3,456 panels those of
    pressure coefficients are 0.001 (root mean square), instead of 0.02.

    Velocities are the slope of the potential along the surface,
    :math:`\mathbf{v} = \mathbf{U} - (\mathbf{U} \cdot \mathbf{n}) \,
    \mathbf{n} + \nabla_S \phi`. Time grows with :math:`P^3` and memory with
    :math:`P^2`: 3,630 panels above a ground take 2.2 to 2.9 s on one core and
    up to 1 GB, torch included.

    Args:
        vertices: Of shape :math:`(V, 3)`, in any unit.
        quads: Vertices of each panel, of shape :math:`(P, 4)`,
            counterclockwise seen from outside. They leave no holes.
        body: Whose panel it is, from zero, of shape :math:`(P)`.
        onflow: The velocity :math:`\mathbf{U}` far away, of shape
            :math:`(3)`; above a ground, horizontal.
        ground: Whether there is a wall at :math:`z = 0`, which mirrored
            bodies stand for.

    Returns:
        The panels, their sources, and velocities and pressure coefficients
        :math:`1 - \lVert \mathbf{v} \rVert^2 / U^2` at their centers, all
        float64.

    Raises:
        ValueError: If shapes do not match, surfaces have holes or face
            inward, nothing flows, or a body or the flow goes through the
            ground.
    """
    vertices, onflow = vertices.double(), onflow.double()
    _check_mesh(vertices, quads, body)
    _check_flow(vertices, onflow, ground)
    panels = Panels.from_corners(vertices[quads])
    onflow = onflow / onflow.norm()
    potential, matrix = _matrices(panels, body, ground)
    through = panels.normal @ onflow
    source = torch.linalg.solve(matrix, -through)
    velocity = onflow - through[:, None] * panels.normal + surface_gradient(
        potential @ source, panels.center, panels.normal, quads_around(quads))
    return Flow(panels, source, velocity, 1 - velocity.square().sum(1))


def _matrices(panels: Panels, body: Tensor,
              ground: bool) -> tuple[Tensor, Tensor]:
    r"""Returns what panels and their images do to potentials and velocities.
    An image does to a panel what the panel does to the other's image.
    """
    potential, matrix = influence(panels, panels.center, panels.normal)
    _close(matrix, panels.area, body)
    if ground:
        mirror = torch.tensor([1., 1., -1.], dtype=potential.dtype)
        images = influence(panels, panels.center * mirror,
                           panels.normal * mirror)
        potential += images[0]
        matrix += images[1]
    return potential, matrix


def _close(matrix: Tensor, area: Tensor, body: Tensor) -> None:
    r"""Sets the diagonal so that what a panel emits leaves its body."""
    matrix.diagonal().zero_()
    mine = torch.nn.functional.one_hot(body).to(area).t() * area
    leaves = (mine @ matrix).gather(0, body[None])[0]
    matrix.diagonal().copy_(1 - leaves / area)


def _check_mesh(vertices: Tensor, quads: Tensor, body: Tensor) -> None:
    expect(vertices.dim() == 2 and vertices.size(1) == 3 and
           bool(vertices.isfinite().all()), 'vertices',
           'finite and of shape (V, 3)', tuple(vertices.shape))
    expect(quads.dim() == 2 and quads.size(1) == 4 and len(quads) > 0,
           'quads', 'of shape (P, 4)', tuple(quads.shape))
    expect(body.shape == quads.shape[:1], 'body',
           f'of shape ({len(quads)},)', tuple(body.shape))
    size = len(vertices)
    after = quads.roll(-1, dims=1)
    there, back = quads * size + after, after * size + quads
    there = there.flatten().sort()[0]
    closed = torch.equal(there, back.flatten().sort()[0])
    expect(closed and bool((there.diff() > 0).all()), 'quads',
           'closed, each side shared by two', 'holes')
    a, b, c, d = vertices[quads].unbind(1)
    volume = torch.zeros(int(body.max()) + 1, dtype=a.dtype).index_add_(
        0, body, ((a + b + c + d) * torch.linalg.cross(c - a, d - b)).sum(1))
    expect(bool((volume > 0).all()), 'quads',
           'counterclockwise seen from outside, with a volume for each body',
           volume.div(24).tolist())


def _check_flow(vertices: Tensor, onflow: Tensor, ground: bool) -> None:
    expect(onflow.shape == (3, ) and bool(onflow.isfinite().all()) and
           bool(onflow.any()), 'onflow', 'a velocity of shape (3,), not zero',
           onflow.tolist())
    if ground:
        expect(onflow[2].item() == 0, 'onflow', 'horizontal above a ground',
               onflow.tolist())
        expect(bool((vertices[:, 2] > 0).all()), 'vertices',
               'above the ground', vertices[:, 2].min().item())
