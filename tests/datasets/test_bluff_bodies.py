from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.datasets import (
    BluffBodies,
    BodyShape,
    write_shapenet_car,
)
from torch_geometric_erwin.datasets.bluff_bodies import GAP
from torch_geometric_erwin.datasets.body_shapes import (
    RANGES,
    is_sound,
    panel_counts,
)
from torch_geometric_erwin.datasets.panels import Panels
from torch_geometric_erwin.transforms import AddBallTree


@pytest.fixture
def bodies(tmp_path):
    def make(**kwargs) -> BluffBodies:
        return BluffBodies(str(tmp_path), **{
            'num_clouds': 2, 'num_points': 400, **kwargs})

    return make


def winding(place, corners):
    r"""How often a surface of triangles goes around each place (Van Oosterom
    and Strackee 1983).
    """
    a, b, c = (corners[None] - place[:, None, None]).unbind(2)
    x, y, z = (side.norm(dim=-1) for side in (a, b, c))
    volume = (torch.linalg.cross(a, b) * c).sum(-1)
    rest = (x * y * z + (a * b).sum(-1) * z + (b * c).sum(-1) * x +
            (c * a).sum(-1) * y)
    return (2 * torch.atan2(volume, rest)).sum(1) / (4 * torch.pi)


@pytest.mark.parametrize('seed', range(5))
def test_bodies_are_closed_and_do_not_cut_themselves(seed):
    r"""A surface that does, or faces inward, goes around some place beside
    it by another number than one inside and zero outside.
    """
    shape = BodyShape.draw(torch.Generator().manual_seed(seed))
    vertices, quads = shape.mesh(500)
    assert is_sound(vertices, quads)
    center, normal, area, *_ = Panels.from_corners(vertices[quads])
    sides = vertices[torch.stack([quads, quads.roll(-1, 1)], dim=-1)]
    tip = center[:, None, None].expand(-1, 4, 1, 3)
    corners = torch.cat([sides, tip], dim=2).flatten(0, 1)
    shift = 0.1 * area.sqrt()[:, None] * normal
    for place, times in ((center - shift, 1.), (center + shift, 0.)):
        found = winding(place, corners)
        assert (found - times).abs().max() < 1e-9


def test_shapes_are_in_their_ranges():
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        shape = BodyShape.draw(rng)
        for name, (low, high) in RANGES.items():
            assert low <= getattr(shape, name) <= high
        vertices, quads = shape.mesh(400)
        size = vertices.amax(0) - vertices.amin(0)
        assert size[0] == pytest.approx(shape.length, rel=0.01)
        assert 0.8 * shape.width < size[1] <= shape.width
        assert 0.8 * shape.height < size[2]
        assert vertices[:, 2].min() == pytest.approx(shape.clearance)
        nx, ny, nz = panel_counts(400)
        assert len(quads) == 2 * (nx * ny + ny * nz + nz * nx)


@pytest.mark.parametrize('num_panels', [200, 400, 1800, 3600])
def test_number_of_panels(num_panels):
    _, quads = BodyShape().mesh(num_panels)
    assert len(quads) == pytest.approx(num_panels, rel=0.04)


def test_folded_bodies_are_not_sound():
    vertices, quads = BodyShape().mesh(400)
    assert is_sound(vertices, quads)
    vertices[vertices[:, 0].argmin(), 0] += 1  # a nose pushed in
    assert not is_sound(vertices, quads)


def test_clouds(bodies):
    data = bodies(num_clouds=3)
    assert len(data) == 3 and len({len(cloud.pos) for cloud in data}) == 1
    for cloud in data:
        n = cloud.num_nodes
        assert n == pytest.approx(400, rel=0.04)
        assert cloud.pos.shape == cloud.normal.shape == (n, 3)
        assert cloud.velocity.shape == (n, 3) and cloud.y.shape == (n, 1)
        assert cloud.area.shape == cloud.body.shape == (n, )
        assert cloud.edge_index.shape == (2, 4 * n)
        assert all(value.dtype in (torch.float32, torch.int64)
                   for value in cloud.to_dict().values())
        cloud.validate()
        assert cloud.is_undirected() and not cloud.body.any()
        speed = cloud.velocity.square().sum(1)
        torch.testing.assert_close(cloud.y[:, 0], 1 - speed)
        assert (cloud.velocity * cloud.normal).sum(1).abs().max() < 1e-5
    assert not torch.equal(data[0].pos, data[1].pos)
    assert str(data) == ("BluffBodies(3, split='train', num_points=400, "
                         "num_bodies=(1, 1))")


def test_air_stops_at_the_nose(bodies):
    r"""It is slow in front, fast over the roof; and the body feels no drag,
    but for errors of coarse panels.
    """
    for cloud in bodies(num_points=1200):
        x, _, z = cloud.pos.unbind(1)
        front = cloud.normal[:, 0] < -0.99
        assert cloud.y[front].max() > 0.95 and x[front].max() < -1
        roof = z > z.max() - 0.02
        assert cloud.y[roof].mean() < -0.2
        push = cloud.y[:, 0] * cloud.area * cloud.normal[:, 0]
        assert push.sum().abs() < 0.05 * push.abs().sum()


def test_triangles_face_outward(bodies):
    cloud = bodies(num_points=1200)[0]
    a, b, c = cloud.pos[cloud.face]
    across = torch.linalg.cross(b - a, c - a)
    assert ((across * cloud.normal[cloud.face[0]]).sum(1) > 0).all()
    area = across.norm(dim=1).sum() / 2
    assert area.item() == pytest.approx(cloud.area.sum().item(), rel=0.03)
    flux = (cloud.area[:, None] * cloud.normal).sum(0)
    assert flux.abs().max() < 1e-4  # closed


def test_several_bodies(bodies):
    counts = set()
    for cloud in bodies(num_clouds=6, num_points=600, num_bodies=(1, 3)):
        assert cloud.num_nodes == pytest.approx(600, rel=0.05)
        counts.add(count := int(cloud.body.max()) + 1)
        for pairs in (cloud.edge_index, cloud.face):
            assert (cloud.body[pairs] == cloud.body[pairs[0]]).all()
        parts = [cloud.pos[cloud.body == k] for k in range(count)]
        for k, part in enumerate(parts):
            gaps = [torch.cdist(part, other).min().item()
                    for i, other in enumerate(parts) if i != k]
            assert not gaps or GAP[0] < min(gaps) < 4
    assert counts == {1, 2, 3}
    assert bodies(num_points=500, num_bodies=2)[0].body.unique().numel() == 2


def test_bodies_feel_each_other_and_the_ground(bodies):
    cloud = bodies()[0]
    free = bodies(ground=False)[0]
    assert torch.equal(cloud.pos, free.pos)
    assert (cloud.y - free.y).abs().max() > 0.1


def test_clouds_are_the_same_every_time(bodies, tmp_path):
    few, many = bodies(num_clouds=1), bodies(num_clouds=2)
    assert torch.equal(few[0].y, many[0].y)
    again = BluffBodies(str(tmp_path / 'other'), num_clouds=1, num_points=400)
    assert torch.equal(again[0].y, few[0].y)
    others = [bodies(num_clouds=1, **option) for option in (
        {'split': 'val'}, {'split': 'test'}, {'seed': 1})]
    for i, other in enumerate([few, *others]):
        for third in others[i:]:
            assert not torch.equal(other[0].pos, third[0].pos)


def test_clouds_are_kept(bodies):
    path = Path(bodies().processed_paths[0])
    before = path.stat().st_mtime_ns
    bodies()
    assert path.stat().st_mtime_ns == before
    options = [{}, {'num_points': 500}, {'num_bodies': (1, 2)},
               {'ground': False}, {'seed': 1}, {'split': 'val'}]
    paths = {bodies(num_clouds=1, **option).processed_paths[0]
             for option in options}
    assert len(paths) == len(options)
    bodies(force_reload=True)
    assert path.stat().st_mtime_ns > before


def test_batches(bodies):
    data = bodies(transform=AddBallTree(ball_size=64))
    batch = next(iter(DataLoader(data, batch_size=2)))
    n = data[0].num_nodes
    assert BallTree.from_data(batch).num_clouds == 2
    assert batch.face.max() == batch.edge_index.max() == 2 * n - 1


@pytest.mark.parametrize('kwargs, name', [
    ({'split': 'all'}, 'split'),
    ({'num_clouds': 0}, 'num_clouds'),
    ({'num_points': 100}, 'num_points'),
    ({'num_bodies': 3}, 'num_points'),
    ({'num_bodies': 0}, 'num_bodies'),
    ({'num_bodies': (2, 1)}, 'num_bodies'),
    ({'num_bodies': (1, 2, 3)}, 'num_bodies'),
    ({'num_bodies': (1, 1.5)}, 'num_bodies'),
    ({'num_bodies': 1.5}, 'num_bodies'),
])
def test_bad_arguments(bodies, kwargs, name):
    with pytest.raises(ValueError, match=f"Expected '{name}' to be .*got"):
        bodies(**kwargs)


def test_shapenet_car(tmp_path, bodies):
    r"""Read as its readers do."""
    data = bodies()
    clouds = [data[0], data[1]] * 6
    folders = write_shapenet_car(clouds, tmp_path / 'cars')
    root = tmp_path / 'cars' / 'preprocessed'
    found = [path for k in range(9)
             for path in sorted((root / f'param{k}').iterdir())]
    assert found == folders and len(found) == 12
    for path, cloud in zip(found, clouds, strict=True):
        pos = torch.load(path / 'mesh_points.th', weights_only=True)
        pressure = torch.load(path / 'pressure.th', weights_only=True)
        assert pos.dtype == pressure.dtype == torch.float32
        assert torch.equal(pos[:, [2, 0, 1]], cloud.pos)
        torch.testing.assert_close(pressure, 245 * cloud.y[:, 0])
        assert (pos >= torch.tensor([-2., -1., -4.5])).all()
        assert (pos <= torch.tensor([2., 4.5, 6.])).all()


def test_shapenet_car_refuses(tmp_path):
    pos, y = torch.rand(5, 3), torch.rand(5, 1)
    for cloud, name in (
            (Data(pos=pos, y=y[:, 0]), 'y'), (Data(pos=pos), 'y'),
            (Data(pos=pos[:, :2], y=y), 'pos'), (Data(y=y), 'pos')):
        with pytest.raises(ValueError, match=f"Expected '{name}' to be"):
            write_shapenet_car([cloud], tmp_path)
    with pytest.raises(ValueError, match="Expected 'dynamic_pressure'"):
        write_shapenet_car([Data(pos=pos, y=y)], tmp_path, 0.)
