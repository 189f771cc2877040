from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.datasets import (
    PDEBenchmark,
    PerforatedPlates,
    plane_stress,
    write_elasticity,
)
from torch_geometric_erwin.datasets.perforated_plates import (
    clamp,
    draw_plate,
    pull,
)
from torch_geometric_erwin.datasets.plate_mesh import (
    curve,
    is_resolved,
    mesh_plate,
    signed_area,
    spacing,
)
from torch_geometric_erwin.datasets.plate_shapes import (
    GAP,
    Hole,
    draw_holes,
)
from torch_geometric_erwin.transforms import AddBallTree

CIRCLE = Hole(np.full(2, 0.5), 1., np.zeros((2, 3)))


@pytest.fixture(scope='module')
def plates(tmp_path_factory):
    root = str(tmp_path_factory.mktemp('plates'))

    def make(**kwargs) -> PerforatedPlates:
        return PerforatedPlates(root, **{
            'num_clouds': 2, 'num_points': 200, **kwargs})

    return make


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('count', [1, 2, 4])
def test_holes(count):
    sizes = []
    for seed in range(5):
        holes = draw_holes(count, rng(seed))
        rims = [hole.outline(0.01) for hole in holes]
        assert len(holes) == count
        for i, (hole, rim) in enumerate(zip(holes, rims, strict=True)):
            radius = np.linalg.norm(rim - hole.center, axis=1) / hole.size
            assert 0.2 < radius.min() < radius.max() < 0.4
            sizes.append(np.ptp(radius))
            steps = np.linalg.norm(np.roll(rim, -1, 0) - rim, axis=1)
            assert 0.009 < steps.min() < steps.max() < 0.011
            assert abs(hole.excess(rim)).max() < 1e-9
            least = min([rim.min(), 1 - rim.max()] + [
                np.linalg.norm(rim[:, None] - other, axis=2).min()
                for other in rims[:i]])
            assert least >= (0.1 if count == 1 else GAP - 1e-3)
    assert min(sizes) > 0.01  # no circles


def test_waves_have_the_variance_of_the_prior():
    r"""The sum over waves of 4² / (π (k² + 9)), half of it for k = 0."""
    waves = np.stack([Hole.draw(1., rng(s)).waves[0] for s in range(400)])
    want = 16 / (np.pi * (np.arange(7)**2 + 9))
    want[0] /= 2
    assert np.allclose(waves.var(axis=0), want, rtol=0.3)


def test_circles():
    rim = CIRCLE.outline(0.01)
    assert np.allclose(np.linalg.norm(rim - 0.5, axis=1), 0.3)
    area = 1 - np.pi * 0.09
    # As many hexagons, of which those on outlines have but half.
    h, n = spacing([CIRCLE], 972), 972
    hexagons = n - (4 + 0.6 * np.pi) / h / 2
    assert hexagons * 3**0.5 / 2 * h**2 == pytest.approx(area, rel=1e-3)


@pytest.mark.parametrize('count, num_points', [(1, 200), (3, 600)])
def test_meshes_fill_plates(count, num_points):
    for seed in range(2):
        holes = draw_plate(count, num_points, rng(seed))
        points, triangles = mesh_plate(holes, num_points, rng(seed))
        assert len(points) == len(np.unique(points, axis=0)) == num_points
        area = signed_area(points, triangles)
        a, b, c = points[triangles].transpose(1, 0, 2)
        sides = np.stack([np.linalg.norm(x, axis=1)
                          for x in (b - a, c - b, a - c)])
        # Twice the inner radius by the outer one: one at best.
        quality = 16 * area**2 / (sides.prod(0) * sides.sum(0))
        assert area.min() > 0 and quality.min() > 0.4
        assert quality.mean() > 0.9
        rims = [hole.outline(spacing(holes, num_points)) for hole in holes]
        void = sum(abs(signed_area(rim, np.stack([
            0 * np.arange(1, len(rim) - 1), np.arange(1, len(rim) - 1),
            np.arange(2, len(rim))], axis=1)).sum()) for rim in rims)
        assert area.sum() == pytest.approx(1 - void, abs=1e-9)


def test_midpoints_move_to_the_nearest_outline():
    small = replace(CIRCLE, size=0.2)
    holes = [replace(small, center=np.array([x, 0.5])) for x in (0.2, 0.8)]
    points = np.array([[0.3, 0.5], [0.69, 0.5], [0.5, 0.], [1., 0.4]])
    want = np.array([[0.26, 0.5], [0.74, 0.5], [0.5, 0.], [1., 0.4]])
    assert np.allclose(curve(points, holes), want)
    assert np.array_equal(curve(points, []), points)


def test_rough_outlines_are_not_resolved():
    waves = np.zeros((2, 13))
    waves[0, 12] = 3.
    assert is_resolved([CIRCLE], 200)
    assert not is_resolved([replace(CIRCLE, waves=waves)], 200)


def test_too_few_points():
    small = replace(CIRCLE, size=0.5)
    near = [replace(small, center=np.array([x, 0.5])) for x in (0.35, 0.66)]
    with pytest.raises(RuntimeError, match=r'200 points .* 2 holes'):
        mesh_plate(near, 200, rng())


def test_stress_converges_and_is_in_equilibrium():
    holes = draw_holes(1, rng(3))
    points, triangles = mesh_plate(holes, 300, rng())
    found = [plane_stress(points, triangles, pull, clamp,
                          lambda x: curve(x, holes), refinements=k)
             for k in range(3)]
    for solution in found:
        assert np.allclose(solution.reaction, [0., -1.], atol=1e-9)
    inner = points[:, 1] > 0.1  # no clamped corners
    error = [np.linalg.norm((x.von_mises - found[2].von_mises)[inner])
             for x in found[:2]]
    norm = np.linalg.norm(found[2].von_mises[inner])
    assert error[1] < error[0] / 3 and error[1] < 0.02 * norm


def test_mirrored_plates_have_the_mirrored_stress():
    holes = draw_holes(1, rng(2))
    points, triangles = mesh_plate(holes, 200, rng())
    flip = np.array([1., 0.]), np.array([-1., 1.])
    one = plane_stress(points, triangles, pull, clamp)
    two = plane_stress(flip[0] + flip[1] * points, triangles[:, ::-1],
                       pull, clamp)
    assert np.allclose(one.von_mises, two.von_mises, rtol=1e-6)


def test_clouds(plates):
    data = plates()
    for cloud in data:
        assert cloud.pos.shape == (200, 2) and cloud.y.shape == (200, 1)
        assert cloud.stress.shape == (200, 3)
        assert all(value.dtype in (torch.float32, torch.int64)
                   for value in cloud.to_dict().values())
        cloud.validate()
        assert cloud.is_undirected() and not cloud.has_isolated_nodes()
        assert cloud.pos.min() == 0 and cloud.pos.max() == 1
        # By Euler's formula: a square with one hole.
        assert 200 - cloud.num_edges // 2 + cloud.face.size(1) == 0
        xx, yy, xy = cloud.stress.t()
        assert torch.allclose(cloud.y[:, 0], (
            xx**2 - xx * yy + yy**2 + 3 * xy**2).sqrt(), atol=1e-4)
        # The plate is pulled at the top, left and right of the hole most.
        assert yy[cloud.pos[:, 1] == 1].mean() == pytest.approx(1, abs=0.2)
        assert cloud.y.mean() > 1 and cloud.y.max() > 3
    assert str(data) == ("PerforatedPlates(2, split='train', "
                         "num_points=200, num_holes=(1, 1))")


def test_several_holes(plates):
    data = plates(num_clouds=4, num_points=400, num_holes=(1, 2))
    counts = {1 - (400 - cloud.num_edges // 2 + cloud.face.size(1))
              for cloud in data}
    assert counts == {1, 2}


def test_clouds_are_the_same_every_time(plates, tmp_path):
    few, many = plates(num_clouds=1), plates(num_clouds=2)
    assert torch.equal(few[0].y, many[0].y)
    again = PerforatedPlates(str(tmp_path), num_clouds=1, num_points=200)
    assert torch.equal(again[0].y, few[0].y)
    assert torch.equal(again[0].face, few[0].face)
    others = [plates(num_clouds=1, **option) for option in (
        {'split': 'val'}, {'split': 'test'}, {'seed': 1})]
    for i, other in enumerate([few, *others]):
        for third in others[i:]:
            assert not torch.equal(other[0].pos, third[0].pos)


def test_clouds_are_kept(plates):
    path = Path(plates().processed_paths[0])
    before = path.stat().st_mtime_ns
    plates()
    assert path.stat().st_mtime_ns == before
    options = [{}, {'num_points': 220}, {'seed': 1}, {'split': 'val'}]
    paths = {plates(num_clouds=1, **option).processed_paths[0]
             for option in options}
    assert len(paths) == len(options)


def test_batches(plates):
    data = plates(transform=AddBallTree(ball_size=64))
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert BallTree.from_data(batch).num_clouds == 2
    assert batch.face.max() == batch.edge_index.max() == 399


@pytest.mark.parametrize('kwargs, name', [
    ({'split': 'all'}, 'split'),
    ({'num_clouds': 0}, 'num_clouds'),
    ({'num_points': 199}, 'num_points'),
    ({'num_holes': 2}, 'num_points'),
    ({'num_holes': 0}, 'num_holes'),
    ({'num_holes': (2, 1)}, 'num_holes'),
    ({'num_holes': 10, 'num_points': 2000}, 'num_holes'),
])
def test_bad_arguments(plates, kwargs, name):
    with pytest.raises(ValueError, match=f"Expected '{name}' to be .*got"):
        plates(**kwargs)


def test_the_benchmark_reads_what_is_written(tmp_path):
    torch.manual_seed(0)
    clouds = [Data(pos=torch.rand(972, 2), y=torch.rand(972, 1))
              for _ in range(4)]
    paths = write_elasticity(clouds, tmp_path)
    assert [path.name for path in paths] == [
        'Random_UnitCell_XY_10.npy', 'Random_UnitCell_sigma_10.npy']
    for split, given in (('train', clouds[:3]), ('test', clouds[3:])):
        found = PDEBenchmark(tmp_path, 'elasticity', split, num_train=3,
                             num_test=1)
        for cloud, want in zip(found, given, strict=True):
            assert torch.equal(cloud.pos, want.pos)
            assert torch.allclose(cloud.y, 100 * want.y)


def test_writing_refuses(tmp_path):
    pos, y = torch.rand(972, 2), torch.rand(972, 1)
    for cloud, name in (
            (Data(pos=pos, y=y[:, 0]), 'y'), (Data(pos=pos), 'y'),
            (Data(pos=pos[:9], y=y[:9]), 'pos'), (Data(y=y), 'pos')):
        with pytest.raises(ValueError, match=f"Expected '{name}' to be"):
            write_elasticity([cloud], tmp_path)
    with pytest.raises(ValueError, match="Expected 'clouds' to be"):
        write_elasticity([], tmp_path)
    with pytest.raises(ValueError, match="Expected 'tension'"):
        write_elasticity([Data(pos=pos, y=y)], tmp_path, 0.)
