import math
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.datasets import (
    Cosmology,
    HaloMock,
    LinearTheory,
    grid,
)
from torch_geometric_erwin.transforms import AddBallTree


@pytest.fixture
def halos(tmp_path):
    def make(**kwargs) -> HaloMock:
        return HaloMock(str(tmp_path), **{
            'num_clouds': 2, 'num_halos': 500, 'grid_size': 32, **kwargs})

    return make


@pytest.mark.parametrize('cosmology', [Cosmology(), Cosmology(
    0.25, 0.04, 0.7, 1., 0.9)])
def test_power_spectrum_is_normalized(cosmology):
    r"""The spectrum's fluctuations in spheres of 8 Mpc/h are sigma_8."""
    k = torch.linspace(1e-4, 30, 400_001, dtype=torch.float64)
    x = 8 * k
    window = 3 * (x.sin() / x**3 - x.cos() / x**2)
    integrand = k**2 * cosmology.power(k) * window**2 / (2 * math.pi**2)
    sigma = torch.trapezoid(integrand, k).sqrt().item()
    assert sigma == pytest.approx(cosmology.sigma_8, rel=1e-3)
    low = torch.tensor([1e-6, 2e-6], dtype=torch.float64)
    assert torch.allclose(cosmology.transfer(low),
                          torch.ones(2, dtype=torch.float64), atol=1e-4)
    ratio = cosmology.power(low)[1] / cosmology.power(low)[0]
    assert ratio.item() == pytest.approx(2**cosmology.n_s, rel=1e-3)
    assert cosmology.power(torch.zeros(1)).item() == 0


@pytest.mark.parametrize('z', [0., 0.5, 2.])
def test_growth(z):
    r"""Against the growing solution D ~ H int da / (a H)^3."""
    cosmology = Cosmology()

    def exact(z: float) -> float:
        a = torch.linspace(1e-4, 1 / (1 + z), 20_001, dtype=torch.float64)
        h = (cosmology.omega_m / a**3 + 1 - cosmology.omega_m).sqrt()
        return (h[-1] * torch.trapezoid(1 / (a * h)**3, a)).item()

    assert cosmology.growth(z) == pytest.approx(exact(z) / exact(0.),
                                                rel=5e-3)
    step = 1e-3
    rate = -(1 + z) * (math.log(exact(z + step)) - math.log(exact(z))) / step
    assert cosmology.growth_rate(z) == pytest.approx(rate, rel=2e-2)
    assert cosmology.matter_fraction(0.) == pytest.approx(cosmology.omega_m)
    assert cosmology.velocity_unit(0.) == pytest.approx(100)


def test_fields_have_the_power_spectrum(halos):
    data = halos(grid_size=64, box_size=500.)
    k = grid.square_length(grid.wave_vectors(64, 500.)).sqrt()
    found = torch.zeros_like(k)
    for seed in range(8):
        rng = torch.Generator().manual_seed(seed)
        found += data._linear_density(rng).abs()**2 / 8
    found *= (500 / 64)**6 / 500**3
    for low, high in ((0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4)):
        shell = (k > low) & (k < high)
        ratio = (found[shell] / data.cosmology.power(k[shell])).mean()
        assert ratio.item() == pytest.approx(1, abs=0.1)


def test_plane_wave(halos):
    r"""Zel'dovich's solution is exact in one dimension."""
    data, box, a = halos(box_size=100.), 100., 0.3
    x = torch.arange(32, dtype=torch.float64) * box / 32
    k = 2 * math.pi * 2 / box
    wave = (a * torch.cos(k * x)).view(-1, 1, 1).expand(32, 32, 32)
    displacement, velocity = data._move(torch.fft.rfftn(wave))
    exact = (-a / k * torch.sin(k * x)).view(-1, 1, 1).expand(32, 32, 32)
    assert torch.allclose(displacement[0], exact, atol=1e-9)
    assert displacement[1:].abs().max() < 1e-9
    unit = 100 * data.cosmology.growth_rate(0.)
    assert torch.allclose(velocity, unit * displacement, atol=1e-6)


def test_second_order(halos):
    r"""Two crossed waves, worked out by hand."""
    data, box, a = halos(box_size=100.), 100., 0.2
    x = torch.arange(32, dtype=torch.float64) * box / 32
    k = 2 * math.pi / box
    cx = torch.cos(k * x).view(-1, 1, 1).expand(32, 32, 32)
    cy, sx = cx.transpose(0, 1), torch.sin(k * x).view(-1, 1, 1)
    displacement, velocity = data._move(torch.fft.rfftn(a * (cx + cy)))
    # phi_xx phi_yy = a^2 cos kx cos ky = the Laplacian of
    # -a^2 / (2 k^2) cos kx cos ky, whose x derivative is
    second = a**2 / (2 * k) * sx * cy
    exact = -a / k * sx - 3 / 7 * second
    assert torch.allclose(displacement[0], exact.expand(32, 32, 32),
                          atol=1e-9)
    f1, f2 = (data.cosmology.growth_rate(0., order) for order in (1, 2))
    exact = 100 * (-f1 * a / k * sx - f2 * 3 / 7 * second)
    assert torch.allclose(velocity[0], exact.expand(32, 32, 32), atol=1e-6)


def test_velocities_have_the_size_that_theory_says(halos):
    data = halos(num_clouds=12, bias=0., grid_size=64, box_size=500.)
    k = grid.square_length(grid.wave_vectors(64, 500.))
    twice = torch.full_like(k, 2.)  # rfftn leaves out half of the modes
    twice[:, :, [0, -1]] = 1
    power = data.cosmology.power(k.sqrt()) / k.clamp(min=1e-9) * twice
    expected = (power.sum() / 500**3 / 3).sqrt().item()
    expected *= 100 * data.cosmology.growth_rate(0.)
    found = torch.cat([cloud.y for cloud in data]).square().mean().sqrt()
    assert found.item() == pytest.approx(expected, rel=0.15)
    assert 250 < found < 400  # km/s, as of halos


def test_tracers_prefer_dense_places(halos):
    r"""Where exp(b delta) draws from a Gaussian field, the mean of delta is
    b times its variance.
    """
    data = halos(num_halos=4000, grid_size=64, bias=0.5, box_size=600.)
    rng = torch.Generator().manual_seed(0)
    density = data._linear_density(rng)
    field = grid.back(grid.smooth(density, 600., 6.))
    places = data._choose_places(density, rng)
    x, y, z = (places * 64 / 600).round().long().remainder(64).unbind(1)
    found, expected = field[x, y, z].mean(), 0.5 * field.var()
    assert found.item() == pytest.approx(expected.item(), rel=0.15)


def test_clouds(halos):
    data = halos(num_clouds=3)
    assert len(data) == 3
    for cloud in data:
        assert cloud.pos.shape == cloud.y.shape == (500, 3)
        assert cloud.pos.dtype == cloud.y.dtype == torch.float32
        assert cloud.box.tolist() == [[400., 400., 400.]]
        assert (cloud.pos >= 0).all() and (cloud.pos < 400).all()
    assert not torch.equal(data[0].pos, data[1].pos)
    assert str(data) == ("HaloMock(3, split='train', num_halos=500, "
                         "box_size=400)")


def test_clouds_are_the_same_every_time(halos, tmp_path):
    few, many = halos(num_clouds=2), halos(num_clouds=4)
    assert all(torch.equal(few[i].pos, many[i].pos) for i in range(2))
    again = HaloMock(str(tmp_path / 'other'), num_clouds=2, num_halos=500,
                     grid_size=32)
    assert torch.equal(again[1].y, few[1].y)
    others = [halos(split='val'), halos(split='test'), halos(seed=1),
              halos(redshift=1.), halos(cosmology=Cosmology(sigma_8=0.7))]
    for i, other in enumerate([few, *others]):
        for third in others[i:]:
            assert not torch.equal(other[0].pos, third[0].pos)


def test_clouds_are_kept(halos):
    path = Path(halos().processed_paths[0])
    before = path.stat().st_mtime_ns
    halos()
    assert path.stat().st_mtime_ns == before
    assert halos(bias=1.5).processed_paths[0] != str(path)
    other = halos(pre_transform=AddBallTree(ball_size=64))
    assert 'ball_tree_sizes' in other[0]
    assert 'ball_tree_sizes' not in halos()[0]
    halos(force_reload=True)
    assert path.stat().st_mtime_ns > before


def test_periodic_trees(halos):
    data = halos(transform=AddBallTree(ball_size=64, box='box'))
    batch = next(iter(DataLoader(data, batch_size=2)))
    tree = BallTree.from_data(batch)
    assert tree.num_clouds == 2 and tree.box.shape == (2, 3)


def test_linear_theory(halos):
    r"""With many unbiased tracers it finds the amplitude aHf."""
    data = halos(num_clouds=4, num_halos=60_000, grid_size=64, bias=0.,
                 box_size=400.)
    theory = LinearTheory(smoothing=8.).fit(data[:2])
    unit = 100 * data.cosmology.growth_rate(0.)
    assert theory.amplitude == pytest.approx(unit, rel=0.15)
    error = sum((theory(c) - c.y).square().sum() for c in data[2:])
    assert 1 - error / sum(c.y.square().sum() for c in data[2:]) > 0.6
    assert 'amplitude=' in str(theory)


def test_painting_is_the_adjoint_of_reading():
    torch.manual_seed(0)
    pos = torch.rand(100, 3, dtype=torch.float64) * 10
    field = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    density = (grid.paint(pos, 8, 10.) + 1) * 100 / 8**3
    assert torch.allclose((density * field[0]).sum(),
                          grid.interpolate(field, pos, 10.).sum())
    points = torch.cartesian_prod(*[torch.arange(8.)] * 3) * 10 / 8
    assert torch.allclose(grid.interpolate(field, points, 10.).view(8, 8, 8),
                          field[0])


@pytest.mark.parametrize('kwargs, name', [
    ({'split': 'all'}, 'split'),
    ({'num_clouds': 0}, 'num_clouds'),
    ({'num_halos': 0}, 'num_halos'),
    ({'num_halos': 10**6}, 'num_halos'),
    ({'box_size': 0.}, 'box_size'),
    ({'grid_size': 33}, 'grid_size'),
    ({'smoothing': -1.}, 'smoothing'),
    ({'redshift': -1.}, 'redshift'),
])
def test_bad_arguments(halos, kwargs, name):
    with pytest.raises(ValueError, match=f"Expected '{name}' to be .*got"):
        halos(**kwargs)


def test_linear_theory_refuses():
    pos = torch.rand(10, 3)
    cloud = Data(pos=pos, y=pos, box=torch.ones(1, 3))
    with pytest.raises(ValueError, match="Expected 'fit' to be called"):
        LinearTheory()(cloud)
    with pytest.raises(ValueError, match="Expected 'clouds' to hold"):
        LinearTheory().fit([])
    for box in ({}, {'box': torch.tensor([[1., 1., 2.]])}):
        with pytest.raises(ValueError, match="Expected 'data' to have one"):
            LinearTheory().fit([Data(pos=pos, y=pos, **box)])
    with pytest.raises(ValueError, match="Expected 'grid_size' to be"):
        LinearTheory(grid_size=5)
    with pytest.raises(ValueError, match="Expected 'smoothing' to be"):
        LinearTheory(-1.)
