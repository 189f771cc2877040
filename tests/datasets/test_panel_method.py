import math
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import normalize

from torch_geometric_erwin.datasets import potential_flow
from torch_geometric_erwin.datasets.panels import (
    NEAR,
    Panels,
    exact_influence,
    influence,
)
from torch_geometric_erwin.datasets.quad_mesh import (
    box_mesh,
    quads_around,
    quads_beside,
    surface_gradient,
    triangles_between,
)

ONFLOW = torch.tensor([1., 0., 0.], dtype=torch.float64)
CAR = torch.tensor([2., 0.9, 0.6], dtype=torch.float64)


def ball(n, axes=1.):
    r"""A sphere of 6 n² panels, or an ellipsoid."""
    box, quads = box_mesh((n, n, n))
    return normalize((box * math.pi / 4).tan(), dim=1) * axes, quads


def flow_around(vertices, quads, onflow=ONFLOW, ground=False, bodies=1):
    body = torch.arange(bodies).repeat_interleave(len(quads) // bodies)
    return potential_flow(vertices, quads, body, onflow, ground)


def together(a, b):
    return torch.cat([a[0], b[0]]), torch.cat([a[1], b[1] + len(a[0])])


def test_box():
    points, quads = box_mesh((3, 4, 2))
    assert len(quads) == 2 * (12 + 8 + 6) and len(points) == len(quads) + 2
    panels = Panels.from_corners(points[quads])
    assert panels.area.sum().item() == pytest.approx(24)
    assert torch.equal(panels.normal.round(), panels.normal)
    torch.testing.assert_close((panels.normal * panels.center).sum(1),
                               torch.ones(52, dtype=torch.float64))
    torch.testing.assert_close(panels.weights.sum(0), panels.area)


def test_neighbors():
    _, quads = box_mesh((3, 4, 2))
    beside, around = quads_beside(quads), quads_around(quads)
    shared = (quads[:, None, :, None] == quads[None, :, None]).sum((2, 3))
    for pairs, least in ((beside, 2), (around, 1)):
        want = (shared >= least).fill_diagonal_(False).nonzero().t()
        assert torch.equal(pairs, want)
    assert (beside[0].bincount() == 4).all()


def test_triangles_are_closed_and_face_outward():
    points, quads = box_mesh((3, 4, 2))
    a, b, c = points[quads].mean(1)[triangles_between(quads)]
    assert (torch.linalg.cross(b - a, c - a) * (a + b + c)).sum(1).min() > 0
    sides = torch.cat([triangles_between(quads).roll(k, 0)[:2]
                       for k in range(3)], dim=1)
    there = {tuple(side) for side in sides.t().tolist()}
    assert len(there) == sides.size(1)
    assert there == {(j, i) for i, j in there}


def test_slopes_of_parabolas_are_exact():
    r"""On a plane; on a sphere the error is of second order."""
    torch.manual_seed(0)
    pos = torch.rand(30, 3, dtype=torch.float64)
    pos[:, 2] = 0.5
    normal = torch.tensor([0., 0., 1.]).double().expand(30, 3)
    x, y, _ = pos.unbind(1)
    pairs = (1 - torch.eye(30)).nonzero().t()
    found = surface_gradient(x**2 + x * y - y, pos, normal, pairs)
    want = torch.stack([2 * x + y, x - 1, 0 * x], dim=1)
    torch.testing.assert_close(found, want)
    errors = []
    for n in (8, 16):
        points, quads = ball(n)
        pos = normalize(points[quads].mean(1), dim=1)
        x, _, z = pos.unbind(1)
        found = surface_gradient(x * z, pos, pos, quads_around(quads))
        want = torch.stack([z, 0 * x, x], dim=1) - 2 * (x * z)[:, None] * pos
        errors.append((found - want).norm(dim=1).max())
    assert errors[1] < 0.02 and errors[1] < errors[0] / 3


@pytest.mark.parametrize('place', [
    [0.3, 0.2, 0.5], [0.3, 0.2, -0.1], [1.4, -0.6, 0.], [0.5, 1.5, 1e-3]])
def test_exact_integrals(place):
    r"""Against a sum over small cells of a plane quad."""
    corners = torch.tensor([[0., 0., 0.], [1., .1, 0.], [1.2, 1., 0.],
                            [-.1, .8, 0.]], dtype=torch.float64)
    place = torch.tensor(place, dtype=torch.float64)
    direction = normalize(torch.tensor([.3, -.5, .8]).double(), dim=0)
    n = 1000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    u, v = (w[..., None] for w in torch.meshgrid(u, u, indexing='ij'))
    a, b, c, d = corners
    cells = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)
    area = torch.linalg.cross((1 - v) * (b - a) + v * (c - d),
                              (1 - u) * (d - a) + u * (c - b))[..., 2] / n**2
    step = place - cells
    want = [(area / step.norm(dim=-1)).sum(),
            (area * (step @ direction) / step.norm(dim=-1)**3).sum()]
    found = exact_influence(place[None], direction[None], corners[None],
                            torch.tensor([[0., 0., 1.]]).double())
    torch.testing.assert_close(torch.cat(found), torch.stack(want), rtol=1e-4,
                               atol=1e-4)


def test_on_a_panel_half_goes_outward():
    corners = torch.tensor([[[0., 0., 0.], [1., 0., 0.], [1., 1., 0.],
                             [0., 1., 0.]]], dtype=torch.float64)
    panels = Panels.from_corners(corners)
    potential, velocity = influence(panels, panels.center, panels.normal)
    assert velocity.item() == pytest.approx(0.5)
    want = -math.log(1 + math.sqrt(2)) / math.pi
    assert potential.item() == pytest.approx(want)


def test_far_integrals():
    r"""Gauss's formula where it takes over, and farther."""
    points, quads = ball(6, CAR)
    panels = Panels.from_corners(points[quads])
    m = len(quads)
    size = (panels.corners[:, 0] - panels.corners[:, 2]).norm(dim=1)
    torch.manual_seed(0)
    shift = normalize(torch.randn(m, 3, dtype=torch.float64), dim=1)
    for times, bound in ((1.1, 1e-4), (4., 2e-6)):
        pos = panels.center + times * NEAR * size[:, None] * shift
        found = influence(panels, pos, shift)
        exact = exact_influence(pos, shift, panels.corners, panels.normal)
        for got, want, sign in zip(found, exact, (-1, 1), strict=True):
            ratio = got.diagonal() * (4 * math.pi * sign) / want
            assert (ratio - 1).abs().max() < bound


def test_sphere():
    r"""The error is of second order in the size of panels."""
    errors = []
    for n in (4, 8, 16):
        flow = flow_around(*ball(n))
        cosine = normalize(flow.panels.center, dim=1)[:, 0]
        error = flow.pressure - (1 - 9 / 4 * (1 - cosine**2))
        errors.append(error.square().mean().sqrt().item())
    assert errors[0] < 0.04 and errors[2] < 0.003
    assert all(b < a / 3.5 for a, b in pairwise(errors))


def added_mass(axes):
    r"""Lamb, Hydrodynamics, section 114: potentials on the surface of an
    ellipsoid are (1 + k_i) U_i x_i with k = alpha / (2 - alpha) and

        alpha_i = a b c int_0^inf dt / ((a_i^2 + t) Delta(t)).
    """
    special = pytest.importorskip('scipy.special')
    square = (axes**2).tolist()
    alpha = torch.tensor([2 / 3 * axes.prod().item() * special.elliprd(
        *square[:i], *square[i + 1:], square[i]) for i in range(3)])
    assert alpha.sum().item() == pytest.approx(2)
    return (alpha / (2 - alpha)).double()


@pytest.mark.parametrize('onflow', [[1., 0., 0.], [0.6, 0.64, 0.48]])
def test_ellipsoid(onflow):
    onflow, errors = torch.tensor(onflow, dtype=torch.float64), []
    for n in (8, 16):
        flow = flow_around(*ball(n, CAR), onflow)
        panels = flow.panels
        normal = normalize(panels.center / CAR**2, dim=1)
        whole = (1 + added_mass(CAR)) * onflow
        want = whole - (normal @ whole)[:, None] * normal
        error = (flow.velocity - want).square().sum(1).mean().sqrt()
        errors.append(error.item())
    assert errors[1] < 0.01 and errors[1] < errors[0] / 3


def images(pos, height, terms=24):
    r"""Potentials x P_n'(cos) / r^(n + 2) of multipoles in a sphere at a
    height, and in its image below the ground.
    """
    total = 0.
    for sign in (1., -1.):
        x, z = pos[:, 0], sign * pos[:, 2] - height
        r = (x**2 + pos[:, 1]**2 + z**2).sqrt()
        p, slopes = [torch.ones_like(r), z / r], [0 * r, torch.ones_like(r)]
        for n in range(1, terms):
            p.append(((2 * n + 1) * z / r * p[n] - n * p[n - 1]) / (n + 1))
            slopes.append(slopes[n - 1] + (2 * n + 1) * p[n])
        total = total + torch.stack([
            x * slopes[n] / r**(n + 2) for n in range(1, terms + 1)], dim=1)
    return total


def velocities(pos, height):
    r"""Of each multipole, of shape (N, 24, 3)."""
    pos = pos.clone().requires_grad_()
    values = images(pos, height)
    return torch.stack([torch.autograd.grad(
        value.sum(), pos, retain_graph=True)[0] for value in values.t()], 1)


def test_sphere_above_ground():
    r"""Against multipoles with the same boundary condition. Below the sphere
    their velocity is 1.7 U, that around a free one 1.5 U at most.
    """
    height, errors = 1.3, []
    for n in (8, 16):
        points, quads = ball(n)
        points[:, 2] += height
        flow = flow_around(points, quads, ground=True)
        up = torch.tensor([0., 0., height], dtype=torch.float64)
        normal = normalize(flow.panels.center - up, dim=1)
        each = velocities(normal + up, height)
        through = torch.einsum('nkd,nd->nk', each, normal)
        weight = torch.linalg.lstsq(through, -normal[:, :1]).solution
        assert (through @ weight + normal[:, :1]).abs().max() < 1e-6
        want = ONFLOW + torch.einsum('nkd,ko->nd', each, weight)
        assert want.norm(dim=1).max() > 1.65
        error = flow.pressure - (1 - want.square().sum(1))
        errors.append(error.square().mean().sqrt().item())
    assert errors[1] < 0.005 and errors[1] < errors[0] / 3


def test_ground_is_a_mirror():
    points, quads = ball(6, CAR)
    points[:, 2] += 0.8
    below = points * torch.tensor([1., 1., -1.]), quads.flip(1)
    both = flow_around(*together((points, quads), below), bodies=2)
    one = flow_around(points, quads, ground=True)
    torch.testing.assert_close(both.pressure[:len(quads)], one.pressure)
    assert not torch.allclose(flow_around(points, quads).pressure,
                              one.pressure, atol=0.05)


def test_far_ground_and_far_bodies_do_not_matter():
    points, quads = ball(6, CAR)
    alone = flow_around(points, quads).pressure
    high = points + torch.tensor([0., 0., 100.])
    torch.testing.assert_close(flow_around(high, quads, ground=True).pressure,
                               alone, atol=1e-5, rtol=0.)
    pair = together((points, quads), (high, quads))
    found = flow_around(*pair, bodies=2).pressure
    torch.testing.assert_close(found, alone.repeat(2), atol=1e-5, rtol=0.)


def test_conservation_and_no_drag():
    r"""A body emits nothing in total, and d'Alembert's paradox."""
    flow = flow_around(*ball(10, CAR), torch.tensor([.8, .6, 0.]).double())
    panels = flow.panels
    assert (flow.source * panels.area).sum().abs() < 1e-12
    force = (flow.pressure * panels.area) @ panels.normal
    assert force.abs().max() < 1e-10  # the ellipsoid is symmetric
    errors = []
    for n in (8, 16):
        points, quads = ball(n, CAR)
        points[:, 2] += 0.3 * points[:, 0]**2  # and a banana is not
        points[:, 1] *= 1 + 0.3 * points[:, 0] / 2
        flow = flow_around(points, quads)
        push = flow.pressure * flow.panels.area
        force = (push @ flow.panels.normal).abs()
        errors.append(force / (push.abs() @ flow.panels.normal.abs()))
    assert errors[1].max() < 0.02 and errors[1].max() < errors[0].max() / 3.5


def test_turned_bodies():
    torch.manual_seed(0)
    points, quads = ball(6, CAR)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    flow = flow_around(points, quads)
    turned = flow_around(points @ turn.t() + 3, quads, turn @ ONFLOW * 2)
    torch.testing.assert_close(turned.pressure, flow.pressure)
    torch.testing.assert_close(turned.velocity, flow.velocity @ turn.t())
    torch.testing.assert_close(turned.source, flow.source)
    bigger = flow_around(7 * points, quads)
    torch.testing.assert_close(bigger.pressure, flow.pressure)


@pytest.mark.parametrize('change, name', [
    ({'vertices': torch.zeros(5, 2)}, 'vertices'),
    ({'vertices': torch.full((98, 3), math.nan)}, 'vertices'),
    ({'quads': torch.zeros(96, 3, dtype=torch.long)}, 'quads'),
    ({'quads': ball(4)[1].flip(1)}, 'quads'),  # faces inward
    ({'quads': ball(4)[1][1:], 'body': torch.zeros(95).long()}, 'quads'),
    ({'quads': ball(4)[1].repeat(2, 1), 'body': torch.zeros(192).long()},
     'quads'),
    ({'body': torch.zeros(95).long()}, 'body'),
    ({'body': torch.ones(96).long()}, 'quads'),  # the first has none
    ({'onflow': torch.zeros(3)}, 'onflow'),
    ({'onflow': torch.ones(2)}, 'onflow'),
    ({'onflow': torch.ones(3), 'ground': True}, 'onflow'),
    ({'ground': True}, 'vertices'),
])
def test_bad_arguments(change, name):
    points, quads = ball(4)
    given = {'vertices': points, 'quads': quads, 'onflow': ONFLOW,
             'body': torch.zeros(96).long(), **change}
    with pytest.raises(ValueError, match=f"Expected '{name}' to be .*got"):
        potential_flow(**given)
