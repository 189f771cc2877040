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


# By colossus 1.4.0, which has the same transfer function and integrates the
# growth, without radiation, as our universe is:
#
#   from colossus.cosmology import cosmology
#   c = cosmology.setCosmology('', dict(
#       flat=True, Om0=0.3175, Ob0=0.049, H0=67.11, ns=0.9624, sigma8=0.834,
#       Tcmb0=2.7255, relspecies=False, persistence=''))
#   D = c.growthFactor(z)
#   f = -(1 + z) * c.growthFactor(z, derivative=1) / D
#   P = c.matterPowerSpectrum(WAVE_NUMBERS, z, model='eisenstein98_zb')
WAVE_NUMBERS = [1e-3, 1e-2, 0.05, 0.2, 1., 10.]
PLANCK, OTHER = Cosmology(), Cosmology(0.25, 0.04, 0.7, 1., 0.9)
GROWTH = [  # universe, redshift, D, f, E, matter fraction
    (PLANCK, 0., 1., 0.5295033, 1., 0.3175),
    (PLANCK, 0.5, 0.7682368, 0.7624954, 1.3244102, 0.6109033),
    (PLANCK, 2., 0.41645325, 0.9593029, 3.0422031, 0.9262561),
    (OTHER, 0., 1., 0.4625331, 1., 0.25),
    (OTHER, 0.5, 0.78887246, 0.7044032, 1.2624381, 0.5294118),
    (OTHER, 2., 0.43810381, 0.9444376, 2.7386128, 0.9),
]
POWER = [  # universe, redshift, P
    (PLANCK, 0., [3805.2992, 22093.141, 13430.813, 2006.7814, 69.258436,
                  0.23278578]),
    (PLANCK, 1., [1397.204, 8112.01, 4931.4349, 736.83642, 25.429844,
                  0.085472708]),
    (OTHER, 0., [6113.7145, 34577.481, 17238.967, 2277.8529, 75.987053,
                 0.26279552]),
    (OTHER, 1., [2433.8122, 13764.97, 6862.6706, 906.7918, 30.249731,
                 0.10461642]),
]


@pytest.mark.parametrize('cosmology, z, growth, rate, expansion, matter',
                         GROWTH)
def test_growth_is_that_of_colossus(cosmology, z, growth, rate, expansion,
                                    matter):
    r"""Within 0.4 percent, what the fits that are used are good for."""
    assert cosmology.growth(z) == pytest.approx(growth, rel=4e-3)
    assert cosmology.growth_rate(z) == pytest.approx(rate, rel=4e-3)
    assert cosmology.expansion(z) == pytest.approx(expansion, rel=1e-7)
    assert cosmology.matter_fraction(z) == pytest.approx(matter, rel=1e-6)
    assert cosmology.velocity_unit(z) == pytest.approx(
        100 * expansion / (1 + z), rel=1e-7)


@pytest.mark.parametrize('cosmology, z, power', POWER)
def test_power_spectrum_is_that_of_colossus(cosmology, z, power):
    r"""Today only the integral for sigma_8 differs, by less than 1e-4; before,
    twice what growth does.
    """
    k = torch.tensor(WAVE_NUMBERS, dtype=torch.float64)
    want = torch.tensor(power, dtype=torch.float64)
    torch.testing.assert_close(cosmology.power(k, z), want, atol=0.,
                               rtol=8e-3 if z else 1e-4)


def integrate_growth(omega_m, z):
    r"""Solves the equations of growth at first and second order (Bouchet et
    al. 1995), with primes for d / d ln a and the matter fraction m,

        D1'' + (2 - 3/2 m) D1' = 3/2 m D1,
        D2'' + (2 - 3/2 m) D2' = 3/2 m (D2 - D1^2),

    from D1 = a and D2 = -3/7 a^2 on, by Runge and Kutta's method. Returns
    D2 / D1^2 and D2' / D2.
    """
    def slope(t, y):
        cube = omega_m * math.exp(-3 * t)
        m = cube / (cube + 1 - omega_m)
        d1, d2, v1, v2 = y
        return torch.stack([
            v1, v2, 1.5 * m * d1 - (2 - 1.5 * m) * v1,
            1.5 * m * (d2 - d1**2) - (2 - 1.5 * m) * v2])

    a, steps = 1e-3, 1000
    t, h = math.log(a), (-math.log(1 + z) - math.log(a)) / steps
    y = torch.tensor([a, -3 / 7 * a**2, a, -6 / 7 * a**2],
                     dtype=torch.float64)
    for _ in range(steps):
        k1 = slope(t, y)
        k2 = slope(t + h / 2, y + h / 2 * k1)
        k3 = slope(t + h / 2, y + h / 2 * k2)
        k4 = slope(t + h, y + h * k3)
        y, t = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), t + h
    d1, d2, _, v2 = y.tolist()
    return d2 / d1**2, v2 / d2


@pytest.mark.parametrize('redshift', [0., 1.])
def test_second_order_velocities(halos, redshift):
    r"""Of two crossed waves. What they do together does not change with their
    sign, so it is the mean of both. Its rate and its factor, which varies a
    little with the matter fraction, are integrated here.
    """
    data, box, a = halos(box_size=100., redshift=redshift), 100., 0.2
    x = torch.arange(32, dtype=torch.float64) * box / 32
    k = 2 * math.pi / box
    cx = torch.cos(k * x).view(-1, 1, 1).expand(32, 32, 32)
    wave = torch.fft.rfftn(a * (cx + cx.transpose(0, 1)))
    displacement, velocity = (sum(pair) / 2 for pair in zip(
        data._move(wave), data._move(-wave), strict=True))
    # The gradient along x of cos kx cos ky over twice the squared length.
    gradient = a**2 / (2 * k) * torch.sin(k * x).view(-1, 1, 1) * (
        cx.transpose(0, 1))
    omega_m = data.cosmology.omega_m
    factor, rate = integrate_growth(omega_m, redshift)
    hubble = 100 * math.sqrt(omega_m * (1 + redshift)**3 + 1 - omega_m)
    close = dict(rtol=1e-2, atol=1e-2 * abs(factor) * a**2 / (2 * k))
    torch.testing.assert_close(displacement[0], factor * gradient, **close)
    torch.testing.assert_close(
        velocity[0] * (1 + redshift) / hubble / rate, factor * gradient,
        **close)


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


def test_every_option_has_a_place_of_its_own(halos):
    options = [{}, {'num_halos': 400}, {'box_size': 300.}, {'grid_size': 16},
               {'bias': 0.5}, {'smoothing': 4.}, {'redshift': 1.},
               {'seed': 1}, {'split': 'val'}, *(
                   {'cosmology': Cosmology(**{name: value})}
                   for name, value in {'omega_m': 0.3, 'omega_b': 0.05,
                                       'h': 0.7, 'n_s': 1.,
                                       'sigma_8': 0.8}.items())]
    paths = {halos(num_clouds=1, **option).processed_paths[0]
             for option in options}
    assert len(paths) == len(options)


def test_the_highest_frequency_has_no_slope():
    r"""Between grid points that alternate; its derivative is no field."""
    x = torch.arange(8, dtype=torch.float64)
    wave = (math.pi * x).cos().view(-1, 1, 1) * (
        2 * math.pi * x / 8).cos().view(1, 1, -1)
    source = torch.fft.rfftn(wave.expand(8, 8, 8))
    slope = grid.gradient_of_potential(source, 10.)
    assert slope[:2].abs().max() < 1e-12 and slope[2].abs().max() > 1e-3
    _, _, _, *mixed = grid.second_derivatives(source, 10.)
    assert max(value.abs().max() for value in mixed) < 1e-12


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
