import os
import pickle
import sys

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix
from torch_geometric.loader import DataLoader
from torch_geometric.utils import coalesce, is_undirected

from tests.datasets.pde_writer import (
    CELLS,
    FIELDS,
    MAT,
    NAMES,
    SAMPLES,
    draw,
    write,
    write_cells,
    write_grids,
    write_mat,
)
from torch_geometric_erwin.datasets import PDEBenchmark

SIZES = dict(num_train=3, num_test=1)


class Trap:
    r"""Leaves a folder behind when its pickle is run."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path), )


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('pde')
    for name in NAMES:
        write(root, name)
    return root


def check_mesh(data, height, width):
    assert data.validate() and data.num_nodes == height * width
    place = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    step = place[data.edge_index[0]] - place[data.edge_index[1]]
    assert step.abs().sum(dim=1).eq(1).all()
    count = 2 * (height * (width - 1) + width * (height - 1))
    assert data.num_edges == count and is_undirected(data.edge_index)
    assert torch.equal(coalesce(data.edge_index), data.edge_index)
    # Two triangles fill each cell of the grid.
    a, b, c = place[data.face].double()
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert area.eq(1).all() or area.eq(-1).all()
    assert data.face.size(1) == 2 * (height - 1) * (width - 1)


@pytest.mark.parametrize('name, size', [('airfoil', (221, 51)),
                                        ('pipe', (128, 128))])
def test_grids(tmp_path, name, size):
    x, y, fields = write_grids(tmp_path, name)
    train = PDEBenchmark(tmp_path, name, **SIZES)
    test = PDEBenchmark(tmp_path, name, 'test', **SIZES)
    assert len(train) == 3 and len(test) == 1
    height, width = size
    for data, i in [(train[0], 0), (train[2], 2), (test[0], 3)]:
        assert sorted(data.keys()) == ['edge_index', 'face', 'pos', 'y']
        for got, want in [(data.pos[:, 0], x[i]), (data.pos[:, 1], y[i]),
                          (data.y[:, 0], fields[i, FIELDS[name][2]])]:
            want = torch.from_numpy(want[:height, :width]).float()
            assert torch.equal(got.view(size), want)
    check_mesh(train[0], *size)


def test_elasticity(tmp_path):
    pos, stress = write_cells(tmp_path)
    train = PDEBenchmark(tmp_path, 'elasticity', **SIZES)
    test = PDEBenchmark(tmp_path, 'elasticity', 'test', **SIZES)
    assert len(train) == 3 and len(test) == 1
    for data, i in [(train[0], 0), (train[2], 2), (test[0], 4)]:
        assert sorted(data.keys()) == ['pos', 'y']
        assert torch.equal(data.pos, torch.from_numpy(pos[..., i]))
        assert torch.equal(data.y[:, 0], torch.from_numpy(stress[:, i]))


@pytest.mark.parametrize('new', [False, True])
def test_plasticity(tmp_path, new):
    arrays = write_mat(tmp_path, new)
    train = PDEBenchmark(tmp_path, 'plasticity', **SIZES)
    test = PDEBenchmark(tmp_path, 'plasticity', 'test', **SIZES)
    assert len(train) == 60 and len(test) == 20
    for data, i, step in [(train[0], 0, 0), (train[27], 1, 7),
                          (train[59], 2, 19), (test[3], 4, 3)]:
        assert data.time.tolist() == [step]
        shape = data.x.view(101, 31)
        assert shape.eq(shape[:, :1]).all()
        assert torch.equal(shape[:, 0], torch.from_numpy(arrays['input'][i]))
        want = torch.from_numpy(arrays['output'][i, :, :, step])
        assert torch.equal(data.y.view(101, 31, 4), want)
    check_mesh(data, 101, 31)
    pos = data.pos.view(101, 31, 2)
    line = torch.linspace(0, 1, 31).expand(101, 31)
    assert torch.allclose(pos[..., 0], line)
    assert torch.allclose(pos[..., 1].t(), torch.linspace(0, 1, 101))
    again = pickle.loads(pickle.dumps(test))  # as loaders with spawn do
    assert torch.equal(again[3].y, data.y)


@pytest.mark.parametrize('name', NAMES)
def test_batch(root, name):
    dataset = PDEBenchmark(root, name, **SIZES)
    want = [dataset[0], dataset[1]]
    batch = next(iter(DataLoader(dataset, batch_size=2, num_workers=1)))
    for i in range(2):
        for key, value in want[i].to_dict().items():
            assert torch.equal(batch[i][key], value)
    assert batch.num_nodes == 2 * want[0].num_nodes
    if name != 'elasticity':
        assert batch.face.max() == batch.num_nodes - 1
    if name == 'plasticity':
        assert batch.time.tolist() == [0, 1]


def test_samples_share_nothing(root):
    dataset = PDEBenchmark(root, 'plasticity', **SIZES)
    dataset[0].edge_index.zero_()
    assert dataset[0].edge_index.any()


def test_transform_and_repr(root):
    dataset = PDEBenchmark(root, 'pipe', transform=lambda data: data.y,
                           **SIZES)
    assert dataset[0].shape == (128 * 128, 1)
    assert str(dataset) == "PDEBenchmark(3, name='pipe', split='train')"


@pytest.mark.parametrize('name, sizes, last', [
    ('airfoil', (1000, 200), False), ('elasticity', (1000, 200), True),
    ('pipe', (1000, 200), False), ('plasticity', (900, 80), True)])
def test_splits_of_the_benchmarks(root, name, sizes, last):
    with pytest.raises(ValueError, match=f'{sizes[0]} samples for training '
                       f'and {sizes[1]} others for test .got 5'):
        PDEBenchmark(root, name)
    dataset = PDEBenchmark(root, name, **SIZES)
    dataset.files.num_samples = 2000
    assert dataset.find_samples(None, None) == range(sizes[0])
    dataset.split = 'test'
    start = 2000 - sizes[1] if last else sizes[0]
    assert dataset.find_samples(None, None) == range(start, start + sizes[1])


@pytest.mark.parametrize('name, key, mean, std', [
    ('airfoil', 'pos', [1.4925, 3.4233e-4], [6.6607, 6.0777]),
    ('airfoil', 'y', [.8163], [.1385]),
    ('elasticity', 'pos', [.4998, .5003], [.3217, .3216]),
    ('elasticity', 'y', [187.7388], [127.0829]),
    ('pipe', 'pos', [4.9609, -.008], [2.8867, .569]),
    ('pipe', 'y', [.1667], [.0805]),
    ('plasticity', 'x', [19.6351], [2.3652]),
    ('plasticity', 'y', [-4.4049], [14.3477])])
def test_normalization(name, key, mean, std):
    got = PDEBenchmark.normalization(name)[key]
    assert got[0].tolist() == pytest.approx(mean)
    assert got[1].tolist() == pytest.approx(std)


@pytest.mark.parametrize('options, match', [
    (dict(name='darcy'), r"'name' to be one of .*\(got 'darcy'\)"),
    (dict(split='val'), r"'split' to be 'train' or 'test' \(got 'val'\)"),
    (dict(num_train=0), r"'num_train' to be at least 1 \(got 0\)"),
    (dict(num_test=1.5), r"'num_test' to be at least 1 \(got 1\.5\)"),
    (dict(num_train=5), r'at least 5 samples .* 1 others .*\(got 5\)'),
])
def test_bad_arguments(root, options, match):
    with pytest.raises(ValueError, match=match):
        PDEBenchmark(root, **{**SIZES, **options})
    with pytest.raises(ValueError, match="'name' to be one of"):
        PDEBenchmark.normalization('darcy')


FILES = [('airfoil', f'airfoil/naca/NACA_Cylinder_{x}.npy') for x in 'XYQ']
FILES += [('elasticity', CELLS.format(x)) for x in ('XY', 'sigma')]
FILES += [('pipe', f'pipe/Pipe_{x}.npy') for x in 'XYQ']


@pytest.mark.parametrize('name, file', [*FILES, ('plasticity', MAT)])
def test_missing_and_truncated_files(tmp_path, name, file):
    write(tmp_path, name)
    PDEBenchmark(tmp_path, name, **SIZES)
    content = (tmp_path / file).read_bytes()
    for size in (0, 7, 100, 150, len(content) // 2, len(content) - 1):
        (tmp_path / file).write_bytes(content[:size])
        with pytest.raises(ValueError, match=f'{file}.*whole'):
            PDEBenchmark(tmp_path, name, **SIZES)
    (tmp_path / file).unlink()
    with pytest.raises(FileNotFoundError, match=f'{file}.*Geo-FNO'):
        PDEBenchmark(tmp_path, name, **SIZES)


@pytest.mark.parametrize('name, file', FILES)
def test_bad_arrays(tmp_path, name, file):
    write(tmp_path, name)
    array = np.load(tmp_path / file)
    trap = np.array([Trap(tmp_path / 'trap')], dtype=object)
    bad = [(array[:-1], r'shape \['), (array[..., None], r'shape \['),
           (array[:, :-1], r'shape \[|more than . channels'),
           (array.astype(complex), 'numbers.*complex128'),
           (trap, 'without pickled objects')]
    for value, match in bad:
        np.save(tmp_path / file, value, allow_pickle=True)
        with pytest.raises(ValueError, match=match):
            PDEBenchmark(tmp_path, name, **SIZES)
    assert not (tmp_path / 'trap').exists()


@pytest.mark.parametrize('new', [False, True])
@pytest.mark.parametrize('changes, match', [
    (dict(input=draw(SAMPLES, 100)), r"'input' of .*101\] \(got \[5, 100\]"),
    (dict(input=draw(4, 101)), r'as many samples each \(got \[4, 5\]\)'),
    (dict(output=draw(SAMPLES, 101, 31, 4, 20)),
     r"'output' of .*101, 31, 20, 4\] \(got \[5, 101, 31, 4, 20\]"),
    (dict(output=None), r'whole.*KeyError'),
    (dict(input=np.full((SAMPLES, 101), 1j)), 'complex128'),
])
def test_bad_matlab_files(tmp_path, new, changes, match):
    write_mat(tmp_path, new, **changes)
    with pytest.raises(ValueError, match=match):
        PDEBenchmark(tmp_path, 'plasticity', **SIZES)


def test_matlab_files_of_cells_or_sparse_arrays(tmp_path):
    cells = np.empty((SAMPLES, 101), dtype=object)
    cells[:] = 'a'
    for value in (cells, csc_matrix(np.eye(SAMPLES, 101))):
        write_mat(tmp_path, input=value)
        with pytest.raises(ValueError, match='dense arrays of numbers'):
            PDEBenchmark(tmp_path, 'plasticity', **SIZES)


def test_truncated_hdf5(tmp_path):
    write_mat(tmp_path, new=True)
    content = (tmp_path / MAT).read_bytes()
    for size in (520, 600, 3000, len(content) // 2, len(content) - 1):
        (tmp_path / MAT).write_bytes(content[:size])
        with pytest.raises(ValueError, match=f'{MAT}.*whole'):
            PDEBenchmark(tmp_path, 'plasticity', **SIZES)


@pytest.mark.parametrize('new, package', [(False, 'scipy'), (True, 'h5py')])
def test_missing_packages(tmp_path, monkeypatch, new, package):
    write_mat(tmp_path, new)
    monkeypatch.setitem(sys.modules, 'scipy.io', None)
    if new:
        PDEBenchmark(tmp_path, 'plasticity', **SIZES)
        monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(ImportError, match=f"requires '{package}'"):
        PDEBenchmark(tmp_path, 'plasticity', **SIZES)
