r"""Flows whose solutions are known."""

import math

import pytest
import torch
from torch import Tensor

from torch_geometric_erwin.datasets import LatticeBoltzmann
from torch_geometric_erwin.datasets.lattice_boltzmann import (
    collision,
    equilibrium,
)


@pytest.mark.parametrize('viscosity', [0.05, 0.5])
def test_poiseuille(viscosity):
    r"""A force drives a parabola between two walls."""
    width = 12
    solid = torch.zeros(width + 2, 3, dtype=torch.bool)
    solid[[0, -1]] = True
    push = 8 * viscosity * 0.02 / width**2
    force = torch.zeros(2, *solid.shape)
    force[0] = push
    solver = LatticeBoltzmann(solid, viscosity)
    for _ in range(int(1.2 * width**2 / viscosity)):
        solver.step(force)
    density, u = solver.fields(force)
    y = torch.arange(width) + 0.5
    exact = push / (2 * viscosity) * y * (width - y)
    assert (u[0, 1:-1, 1] - exact).abs().max() < 0.01 * exact.max()
    assert u[1].abs().max() < 1e-5 and torch.allclose(
        density, torch.ones(()), atol=1e-3)


@pytest.mark.parametrize('size', [24, 48])
def test_decay_of_vortices(size):
    r"""Taylor and Green's vortices decay at their rate, the better the finer
    the grid.
    """
    viscosity, speed = 0.02, 0.6 / size
    k = 2 * math.pi / size
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size),
                          indexing='ij')
    start = speed * torch.stack([-(k * x).cos() * (k * y).sin(),
                                 (k * x).sin() * (k * y).cos()])
    solver = LatticeBoltzmann(torch.zeros(size, size, dtype=torch.bool),
                              viscosity)
    pressure = -speed**2 / 4 * ((2 * k * x).cos() + (2 * k * y).cos())
    solver.populations = equilibrium(1 + 3 * pressure.flatten(),
                                     start.flatten(1))
    steps = size**2 // 4
    for _ in range(steps):
        solver.step()
    exact = start * math.exp(-2 * viscosity * k**2 * steps)
    error = (solver.fields()[1] - exact).norm() / exact.norm()
    assert error < 0.015 * 24 / size


def shedding(size: int, steps: int) -> Tensor:
    r"""The velocity across the wake of a cylinder at Reynolds number 100,
    which begins with a gust, in units of that far away.
    """
    speed, height, width = 0.08, 14 * size, 24 * size
    y, x = torch.meshgrid(torch.arange(height) - height / 2 - 0.5,
                          torch.arange(width) - 6. * size, indexing='ij')
    opening = torch.zeros(height, width, dtype=torch.bool)
    opening[:, [0, -1]] = True
    inflow = torch.full((2, height, width), torch.nan)
    inflow[:, :, 0] = torch.tensor([speed, 0.])[:, None]
    solver = LatticeBoltzmann(x**2 + y**2 <= size**2 / 4,
                              speed * size / 100, opening, inflow)
    gust = 0.5 * torch.exp(-((x - 3 * size)**2 + y**2) / (2 * size)**2)
    start = speed * torch.stack([torch.ones_like(gust), gust])
    solver.populations = equilibrium(torch.ones(gust.numel()),
                                     start.flatten(1))
    place = height // 2 * width + 9 * size
    trace = []
    for _ in range(steps):
        solver.step()
        f = solver.populations[:, place]
        trace.append((f[3] - f[4] + f[5] - f[6] - f[7] + f[8]) / f.sum())
    return torch.stack(trace) / speed


def test_vortices_behind_a_cylinder():
    r"""Their Strouhal number is 0.164 at this Reynolds number (Williamson
    1989), a little more in a row of cylinders.
    """
    size = 10
    wave = shedding(size, 9000)[3600:]
    assert wave.max() > 0.3 and wave.min() < -0.3
    up = ((wave[:-1] < 0) & (wave[1:] >= 0)).nonzero().flatten()
    period = float(up[-1] - up[0]) / (len(up) - 1)
    assert 0.155 < size / (0.08 * period) < 0.175


def test_mass_and_momentum_are_kept():
    solid = torch.zeros(10, 12, dtype=torch.bool)
    solver = LatticeBoltzmann(solid, 0.01)
    torch.manual_seed(0)
    solver.populations = equilibrium(1 + 0.01 * torch.randn(120),
                                     0.05 * torch.randn(2, 120))
    density, u = solver.fields()
    before = density.sum(), (density * u).sum((1, 2))
    for _ in range(50):
        solver.step()
    density, u = solver.fields()
    assert torch.allclose(density.sum(), before[0], rtol=1e-5)
    assert torch.allclose((density * u).sum((1, 2)), before[1], atol=1e-3)


def test_an_open_side_lets_flow_out():
    solid = torch.zeros(20, 40, dtype=torch.bool)
    solid[[0, -1]] = True
    opening = torch.zeros_like(solid)
    opening[1:-1, [0, -1]] = True
    inflow = torch.full((2, 20, 40), torch.nan)
    inflow[:, :, 0] = torch.tensor([0.05, 0.])[:, None]
    solver = LatticeBoltzmann(solid, 0.1, opening, inflow)
    for _ in range(3000):
        solver.step()
    flux = (solver.fields()[0] * solver.fields()[1][0]).sum(0)
    assert torch.allclose(flux[5:-5], flux[20], rtol=1e-3) and flux[20] > 0.5


def test_collisions_keep_the_equilibrium():
    stay, gain = collision(1.3, 0.7)
    density, u = torch.rand(5) + 0.5, 0.1 * torch.randn(2, 5)
    rest = equilibrium(density, u)
    momentum = density * u
    terms = torch.stack([density, *momentum, *(momentum * u),
                         momentum[0] * u[1]])
    assert torch.allclose(stay @ rest + gain[:, :6] @ terms, rest, atol=1e-6)


@pytest.mark.parametrize('name, value', [
    ('solid', torch.zeros(3, 3)), ('solid', torch.zeros(3).bool()),
    ('viscosity', 0.), ('viscosity', math.inf),
    ('opening', torch.ones(3, 3).bool()),
    ('opening', torch.zeros(2, 3).bool()), ('inflow', torch.zeros(3, 3))])
def test_errors(name, value):
    solid = torch.zeros(3, 3, dtype=torch.bool)
    solid[0] = True
    kwargs = {'solid': solid, 'viscosity': 0.1, name: value}
    with pytest.raises(ValueError, match=f"'{name}'"):
        LatticeBoltzmann(**kwargs)
