import os
import sys

import meshio
import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader
from torch_geometric.utils import coalesce, is_undirected

from tests.datasets.car_writer import (
    make_air,
    make_surface,
    write_car,
    write_mesh,
)
from torch_geometric_erwin.datasets import ShapeNetCar
from torch_geometric_erwin.datasets.shapenet_car import (
    INCOMPLETE,
    split_indices,
)


class Trap:
    r"""Leaves a folder behind when its pickle is run."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path), )


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(['param0/b', 'param0/a', 'param7/c']):
        write_car(tmp_path / name, seed)
    for i in range(9):
        (tmp_path / f'param{i}').mkdir(exist_ok=True)
    (tmp_path / 'param0/notes.txt').write_text('not a car')
    (tmp_path / INCOMPLETE[0]).mkdir()
    return tmp_path


def preprocess(root):
    for car in ('param0/a', 'param0/b', 'param7/c'):
        mesh = meshio.read(root / car / 'quadpress_smpl.vtk')
        used = np.unique(mesh.cells[0].data)
        folder = root / 'preprocessed' / car
        folder.mkdir(parents=True)
        torch.save(torch.from_numpy(mesh.points[used].astype('f4')),
                   folder / 'mesh_points.th')
        pressure = np.load(root / car / 'press.npy')[used]
        torch.save(torch.from_numpy(pressure), folder / 'pressure.th')
    for i in range(9):
        (root / f'preprocessed/param{i}').mkdir(exist_ok=True)


def get(root, car, task='surface', **options):
    for split in ('train', 'test'):
        dataset = ShapeNetCar(root, split, task, **options)
        if car in dataset.cars:
            return dataset[dataset.cars.index(car)]
    raise KeyError(car)


def sort(values):
    return values[np.lexsort(values.T)]


@pytest.mark.parametrize('options', [
    {}, dict(binary=False), dict(file_format='vtk42'),
    dict(file_format='vtk42', binary=False)])
def test_surface(tmp_path, options):
    for i in range(9):
        write_car(tmp_path / f'param{i}/car', i, **options)
    data = get(tmp_path, 'param4/car')
    assert data.validate() and data.num_nodes == 8
    points, quads = make_surface(4)
    pressure = np.load(tmp_path / 'param4/car/press.npy')
    used = np.unique(quads)
    assert np.array_equal(data.pos.numpy(), points[used])
    assert np.array_equal(data.y.numpy(), pressure[used][:, None])
    sides = {tuple(sorted(pair)) for quad in quads.tolist()
             for pair in zip(quad, quad[1:] + quad[:1], strict=True)}
    edges = torch.from_numpy(used)[data.edge_index]
    assert {tuple(sorted(x)) for x in edges.t().tolist()} == sides
    assert data.num_edges == 24 and is_undirected(data.edge_index)
    assert torch.equal(coalesce(data.edge_index), data.edge_index)


def test_triangles_enclose_the_car(root):
    data = get(root, 'param0/a')
    a, b, c = data.pos.double()[data.face]
    assert data.face.shape == (3, 12)
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    assert volume.item() == pytest.approx(1.1**3, rel=1e-5)


def test_preprocessed(root):
    preprocess(root)
    for car in ('param0/a', 'param0/b', 'param7/c'):
        data = get(root, car, preprocessed=True)
        want = get(root, car)
        assert sorted(data.keys()) == ['pos', 'y'] and data.validate()
        assert torch.equal(data.pos, want.pos)
        assert torch.equal(data.y, want.y)
    assert not ShapeNetCar(root).preprocessed
    for i in range(9):
        (root / f'param{i}').rename(root / f'old{i}')
    assert ShapeNetCar(root).preprocessed
    with pytest.raises(FileNotFoundError, match="folder 'param0'"):
        ShapeNetCar(root, task='volume')


@pytest.mark.parametrize('flat', [True, False])
@pytest.mark.parametrize('turn', [True, False])
def test_volume(root, flat, turn):
    folder = root / 'param7/c'
    velocity = np.load(folder / 'velo.npy').reshape(-1, 3)
    np.save(folder / 'velo.npy', velocity.ravel() if flat else velocity)
    points, quads = make_surface(2)
    if turn:
        write_mesh(folder / 'quadpress_smpl.vtk', points, 'quad',
                   quads[:, ::-1])
    data = get(root, 'param7/c', 'volume')
    assert data.validate() and data.num_nodes == 64
    assert data.surface.tolist() == [False] * 56 + [True] * 8
    assert data.drag.tolist() == [pytest.approx(.27)]
    air = make_air(2)[0]
    # Every point of the air is there, with its velocity.
    got = torch.cat([data.pos, data.y[:, :3]], dim=1).numpy()
    want = np.concatenate([air, velocity.astype('f4')], axis=1)
    assert np.array_equal(sort(got), sort(want))
    assert data.y[:56, 3].eq(0).all()
    used = np.unique(quads)
    assert np.array_equal(data.pos[56:].numpy(), points[used])
    pressure = np.load(folder / 'press.npy')[used]
    assert np.array_equal(data.y[56:, 3].numpy(), pressure)


@pytest.mark.parametrize('turn', [True, False])
def test_distances_and_normals(root, turn):
    if turn:  # quads as seen from inside
        points, quads = make_surface(1)
        write_mesh(root / 'param0/a/quadpress_smpl.vtk', points, 'quad',
                   quads[:, ::-1])
    data = get(root, 'param0/a', 'volume')
    air, skin = data.pos[:56], data.pos[56:]
    distance, nearest = torch.cdist(air, skin).min(dim=1)
    assert torch.allclose(data.distance[:56, 0], distance)
    assert data.distance[56:].eq(0).all() and data.distance[:56].gt(0).all()
    away = (air - skin[nearest]) / distance[:, None]
    assert torch.allclose(data.normal[:56], away, atol=1e-5)
    outwards = (skin - skin.mean(dim=0)).sign() / 3**.5
    assert torch.allclose(data.normal[56:], outwards, atol=1e-5)


def test_volume_edges(root):
    data = get(root, 'param0/a', 'volume')
    # A grid of 4 x 4 x 4 points whose edges are all there.
    levels = [column.unique(return_inverse=True)[1]
              for column in data.pos.t()]
    grid = torch.stack(levels, dim=1)
    steps = (grid[data.edge_index[0]] - grid[data.edge_index[1]]).abs()
    assert steps.sum(dim=1).eq(1).all()
    assert data.num_edges == 2 * 3 * 3 * 16
    assert is_undirected(data.edge_index)
    assert torch.equal(coalesce(data.edge_index), data.edge_index)
    assert data.face.min() == 56 and data.face.shape == (3, 12)


def test_surface_points_that_the_air_lacks_or_has_twice(root):
    folder = root / 'param0/a'
    points, quads = make_surface(1)
    moved, corner = quads[0, 0], quads[1, 0]
    points[moved] += .125
    # A seam: the same point once more, in another quad.
    points = np.concatenate([points, points[corner][None]])
    quads[1, 0] = 10
    write_mesh(folder / 'quadpress_smpl.vtk', points, 'quad', quads)
    np.save(folder / 'press.npy', np.arange(11.))
    data = get(root, 'param0/a', 'volume')
    assert data.surface.tolist() == [False] * 57 + [True] * 9
    alone = data.pos[57:].eq(torch.from_numpy(points[moved])).all(dim=1)
    assert torch.equal(data.y[57:, :3].eq(0).all(dim=1), alone)
    twins = data.pos[57:].eq(torch.from_numpy(points[corner])).all(dim=1)
    assert twins.sum() == 2
    speed = data.y[57:, :3][twins]
    assert torch.equal(speed[0], speed[1])


def test_split(root):
    train, test = ShapeNetCar(root), ShapeNetCar(root, 'test')
    assert len(train) == 2 and len(test) == 1
    assert sorted(train.cars + test.cars) == ['param0/a', 'param0/b',
                                              'param7/c']
    assert train.cars == sorted(train.cars)
    assert str(test) == "ShapeNetCar(1, split='test', task='surface')"


def test_split_of_the_benchmark(tmp_path):
    counts = (100, 99, 97, 100, 100, 96, 100, 98, 99)
    names = [f'param{i}/{j:03}' for i, n in enumerate(counts)
             for j in range(n)]
    for name in names:
        folder = tmp_path / 'preprocessed' / name
        folder.mkdir(parents=True)
        (folder / 'mesh_points.th').touch()
        (folder / 'pressure.th').touch()
    train, test = ShapeNetCar(tmp_path), ShapeNetCar(tmp_path, 'test')
    assert (len(train), len(test)) == (700, 189)
    order = torch.randperm(889, generator=torch.Generator().manual_seed(0))
    chosen = order[:189].tolist()
    assert chosen[:8] == [550, 592, 229, 547, 62, 464, 798, 836]
    assert test.cars == [names[i] for i in sorted(chosen)]
    assert sorted(train.cars + test.cars) == names
    sizes = [len(split_indices(n, 'test')) for n in (2, 10, 100, 893)]
    assert sizes == [1, 2, 21, 190]


def test_batch(root):
    for task in ('surface', 'volume'):
        dataset = ShapeNetCar(root, task=task)
        batch = next(iter(DataLoader(dataset, batch_size=2)))
        second, offset = dataset[1], dataset[0].num_nodes
        assert torch.equal(batch.face[:, 12:], second.face + offset)
        for i, want in enumerate(dataset):
            for key, value in want.to_dict().items():
                assert torch.equal(batch[i][key], value)
    assert batch.drag.shape == (2, )


def test_normalization():
    stats = ShapeNetCar.normalization()
    pos = torch.tensor([[-2., -1., -4.5], [2., 4.5, 6.], [.3, 1., -2.]])
    low, high = pos[:2]
    want = ((pos - low) / (high - low) - .4063) / .1531
    mean, std = stats['pos']
    assert torch.allclose((pos - mean) / std, want, atol=1e-5)
    mean, std = stats['y']
    assert mean.item() == pytest.approx(-36.3099)
    assert std.item() == pytest.approx(48.5743)


@pytest.mark.parametrize('options, match', [
    (dict(split='val'), r"'split' to be 'train' or 'test' \(got 'val'\)"),
    (dict(task='drag'), r"'task' to be one of .*\(got 'drag'\)"),
    (dict(task='volume', preprocessed=True), "'preprocessed' to be False"),
])
def test_bad_arguments(root, options, match):
    with pytest.raises(ValueError, match=match):
        ShapeNetCar(root, **options)


def test_missing_files(root):
    folder = root / 'param7/c'
    for name in ('quadpress_smpl.vtk', 'press.npy', 'velo.npy', 'cd.txt',
                 'hexvelo_smpl.vtk'):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf'{name}.*umetani'):
            get(root, 'param7/c', 'volume')
        if name in ('quadpress_smpl.vtk', 'press.npy'):
            with pytest.raises(FileNotFoundError, match=name):
                get(root, 'param7/c')
        else:
            get(root, 'param7/c')
        (folder / name).write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"'param0'.*preprocessed"):
        ShapeNetCar(root, preprocessed=True)
    (root / 'param4').rmdir()
    with pytest.raises(FileNotFoundError, match="folder 'param4'"):
        ShapeNetCar(root)


def test_no_cars(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder 'param0'"):
        ShapeNetCar(tmp_path)
    for i in range(9):
        (tmp_path / f'param{i}').mkdir()
    with pytest.raises(ValueError, match=r"'root' to be .* two cars"):
        ShapeNetCar(tmp_path)


@pytest.mark.parametrize('name, value, match', [
    ('press.npy', np.zeros(9), r'shape \[10\] \(got \[9\]\)'),
    ('press.npy', np.array(['a'] * 10), 'numbers'),
    ('velo.npy', np.zeros(190), r'shape \[64, 3\] \(got \[190\]\)'),
    ('velo.npy', np.zeros((3, 64)), r'shape \[64, 3\] \(got \[3, 64\]\)'),
])
def test_bad_arrays(root, name, value, match):
    np.save(root / 'param0/a' / name, value)
    with pytest.raises(ValueError, match=f'{name}.*{match}'):
        get(root, 'param0/a', 'volume')


@pytest.mark.parametrize('text', ['', 'high', '0.1 0.2'])
def test_bad_drag(root, text):
    (root / 'param0/a/cd.txt').write_text(text)
    with pytest.raises(ValueError, match=r'cd\.txt.*one number'):
        get(root, 'param0/a', 'volume')


def test_bad_meshes(root):
    path = root / 'param0/a/quadpress_smpl.vtk'
    points, quads = make_surface(1)
    write_mesh(path, points, 'triangle', quads[:, :3])
    with pytest.raises(ValueError, match=r"'quad' \(got \['triangle'\]\)"):
        get(root, 'param0/a')
    write_mesh(path, points, 'quad', quads + 4)
    with pytest.raises(ValueError, match=r'its 10 points \(got indices'):
        get(root, 'param0/a')
    path.write_bytes(b'not a mesh')
    with pytest.raises(ValueError, match=r'quadpress_smpl\.vtk.*of VTK'):
        get(root, 'param0/a')


@pytest.mark.parametrize('options', [{}, dict(file_format='vtk42')])
@pytest.mark.parametrize('name', ['quadpress_smpl.vtk', 'hexvelo_smpl.vtk',
                                  'press.npy', 'velo.npy'])
def test_truncated_files(root, name, options):
    folder = root / 'param5/d'
    write_car(folder, 5, **options)
    path = folder / name
    content = path.read_bytes()
    # What follows the last number is a line break.
    for size in (*range(0, len(content) - 1, 1 + len(content) // 15),
                 len(content) - 2):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=name):
            get(root, 'param5/d', 'volume')


def test_bad_tensors(root):
    preprocess(root)
    folder = root / 'preprocessed/param0/a'

    def check(match):
        with pytest.raises(ValueError, match=match):
            get(root, 'param0/a', preprocessed=True)

    points, pressure = folder / 'mesh_points.th', folder / 'pressure.th'
    content = points.read_bytes()
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        points.write_bytes(content[:size])
        check(r'mesh_points\.th.*a tensor, whole')
    torch.save([1.], points)
    check("a tensor of real numbers.*'list'")
    torch.save(torch.zeros(8, 3, dtype=torch.long), points)
    check('a tensor of real numbers.*int64')
    torch.save(torch.zeros(8, 2), points)
    check(r'shape \[\*, 3\] \(got \[8, 2\]\)')
    torch.save(torch.zeros(8, 3), points)
    torch.save(torch.zeros(8, 1), pressure)
    check(r'pressure\.th.*shape \[8\] \(got \[8, 1\]\)')


def test_pickles_are_not_run(root):
    preprocess(root)
    trap = Trap(root / 'trap')
    torch.save(trap, root / 'preprocessed/param0/a/pressure.th')
    with pytest.raises(ValueError, match='without pickled objects'):
        get(root, 'param0/a', preprocessed=True)
    np.save(root / 'param0/a/press.npy', np.array([trap] * 10),
            allow_pickle=True)
    with pytest.raises(ValueError, match='without pickled objects'):
        get(root, 'param0/a')
    assert not (root / 'trap').exists()


def test_missing_package(root, monkeypatch):
    preprocess(root)
    monkeypatch.setitem(sys.modules, 'meshio', None)
    get(root, 'param0/a', preprocessed=True)
    with pytest.raises(ImportError, match="'ShapeNetCar' requires 'meshio'"):
        get(root, 'param0/a')
