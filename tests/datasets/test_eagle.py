import os
import pickle

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader
from torch_geometric.utils import coalesce, is_undirected

from tests.datasets.eagle_writer import (
    MESHES,
    POINTS,
    SPLITS,
    STEPS,
    make_arrays,
    write,
    write_all,
)
from torch_geometric_erwin.datasets import EAGLE
from torch_geometric_erwin.datasets.array_files import open_npz


class Trap:
    r"""Leaves a file behind when its pickle is run."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def root(tmp_path):
    write_all(tmp_path)
    return tmp_path


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('extra', [(), (1,)])
def test_window(root, save, extra):
    arrays = make_arrays(7)
    mask = arrays['mask'].reshape(STEPS, POINTS, *extra)
    write(root / 'Cre/1/1', 7, save, mask=mask)
    data = EAGLE(root, window=3, start=5)[0]
    assert data.validate() and data.num_nodes == POINTS
    assert data.start.tolist() == [5]
    pos = torch.from_numpy(arrays['pointcloud']).float()
    assert torch.equal(data.pos, pos[5])
    assert data.pos_window.shape == (POINTS, 3, 2)
    for step in range(3):
        assert torch.equal(data.pos_window[:, step], pos[5 + step])
        for i, name in enumerate(('VX', 'VY', 'PS', 'PG')):
            assert torch.equal(data.y[:, step, i],
                               torch.from_numpy(arrays[name][5 + step]))
        assert torch.equal(data.node_type[:, step],
                           torch.from_numpy(arrays['mask'][5 + step]))
    assert data.y.shape == (POINTS, 3, 4) and data.y.dtype == torch.float
    assert data.node_type.dtype == torch.long


def test_meshes(root):
    data = EAGLE(root, window=3, start=5)[1]
    for step in range(3):
        mesh = MESHES[(5 + step) % 2]
        assert data.face[:, data.face_step == step].t().tolist() == mesh
        sides = {pair for a, b, c in mesh
                 for pair in [(a, b), (b, c), (c, a)]}
        sides |= {(b, a) for a, b in sides}
        edges = data.edge_index[:, data.edge_step == step]
        assert sorted(sides) == [tuple(x) for x in edges.t().tolist()]
        assert is_undirected(edges)
        assert torch.equal(edges, coalesce(edges))
    assert data.edge_step.tolist() == sorted(data.edge_step.tolist())


def test_triangles_without_area_have_no_loops(root):
    triangles = np.load(root / 'Cre/1/1/triangles.npy')
    triangles[:, 1:] = 0  # padding
    np.save(root / 'Cre/1/1/triangles.npy', triangles)
    data = EAGLE(root, window=1, start=0)[0]
    assert data.face.shape == (3, 3)
    assert data.edge_index.tolist() == [[0, 0, 1, 1, 2, 2],
                                        [1, 2, 0, 2, 0, 1]]


def test_big_endian_and_fortran_order(root):
    arrays = make_arrays(7)
    write(root / 'Cre/1/1', 7, VX=arrays['VX'].astype('>f8'),
          VY=np.asfortranarray(arrays['VY']))
    data = EAGLE(root, window=2, start=3)[0]
    for i, name in enumerate(('VX', 'VY')):
        want = torch.from_numpy(arrays[name][3:5])
        assert torch.equal(data.y[..., i].t(), want)


def test_stored_members_are_mapped(root):
    path = str(root / 'Cre/1/1/sim.npz')
    assert isinstance(open_npz(path, ['VX'])['VX'], np.memmap)
    write(root / 'Cre/1/1', 1, np.savez_compressed)
    assert not isinstance(open_npz(path, ['VX'])['VX'], np.memmap)


def test_splits(root):
    train, val, test = (EAGLE(root, split, window=2, start=0)
                        for split in ('train', 'val', 'test'))
    assert train.simulations == SPLITS['train'] and len(train) == 2
    assert val.simulations == SPLITS['valid'] and len(val) == 1
    assert test.simulations == SPLITS['test'] and len(test) == 1
    assert not torch.equal(val[0].y, test[0].y)
    assert str(val) == "EAGLE(1, split='val', window=2)"
    assert (EAGLE(root).window, EAGLE(root, 'val').window,
            EAGLE(root, 'test').window) == (6, 2, 400)
    assert (EAGLE(root).start, EAGLE(root, 'val').start,
            EAGLE(root, 'test').start) == ('random', 100, 100)


def test_random_starts(root):
    dataset = EAGLE(root, window=4)

    def draw():
        torch.manual_seed(1)
        return [dataset[0].start.item() for _ in range(100)]

    starts = draw()
    assert set(starts) == set(range(STEPS - 3)) and draw() == starts


def test_batch(root):
    write(root / 'Tri/2/1', 3, **make_arrays(3, points=7))
    dataset = EAGLE(root, window=2, start=4,
                    transform=lambda data: data.update({'seen': True}))
    loader = DataLoader(dataset, batch_size=2, num_workers=1)
    batch = next(iter(loader))
    assert batch.pos_window.shape == (12, 2, 2) and all(batch.seen)
    assert batch.start.tolist() == [4, 4]
    second = dataset[1]
    edges = batch.edge_index[:, dataset[0].num_edges:]
    assert torch.equal(edges, second.edge_index + POINTS)
    assert torch.equal(batch.face[:, 6:], second.face + POINTS)
    for i in range(2):
        one, want = batch[i], dataset[i]
        for key in want.keys():  # noqa: SIM118
            assert key == 'seen' or torch.equal(one[key], want[key])


def test_normalization():
    mean, std = EAGLE.normalization()['y']
    assert mean.tolist() == pytest.approx([-0.0015, 0.2211, -0.8322, 4.605])
    assert std.tolist() == pytest.approx([1.797, 2.0258, 7.4013, 9.7232])


@pytest.mark.parametrize('options, match', [
    (dict(split='valid'), r"'split' to be one of .*\(got 'valid'\)"),
    (dict(window=0), r"'window' to be at least 1 \(got 0\)"),
    (dict(window=2.), r"'window'.*\(got 2\.0\)"),
    (dict(start=-1), r"'start' to be a step or 'random' \(got -1\)"),
    (dict(start='late'), r"'start'.*\(got 'late'\)"),
])
def test_bad_arguments(root, options, match):
    with pytest.raises(ValueError, match=match):
        EAGLE(root, **options)


@pytest.mark.parametrize('options', [
    dict(window=13), dict(window=6, start=7), dict(split='test'),
    dict(split='val')])
def test_short_simulations(root, options):
    with pytest.raises(ValueError, match=r'sim\.npz.*steps.*got 12 in all'):
        EAGLE(root, **options)[0]
    assert EAGLE(root, window=12)[0].start.item() == 0


def test_missing_files(root):
    (root / 'Tri/2/1/triangles.npy').unlink()
    with pytest.raises(FileNotFoundError, match=r'triangles.*eagle-dataset'):
        EAGLE(root)
    (root / 'Splits/valid.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'Splits/valid\.txt.*EAGLE'):
        EAGLE(root, 'val')
    (root / 'Splits/test.txt').write_text('\n')
    with pytest.raises(ValueError, match=r'test\.txt.*folders \(got none\)'):
        EAGLE(root, 'test')


@pytest.mark.parametrize('changes, match', [
    (dict(VX=None), r"'VX', 'VY'.*VX\.npy"),
    (dict(PS=np.zeros((STEPS, POINTS + 1))),
     r"'PS' of .*shape \[12, 5\] \(got \[12, 6\]\)"),
    (dict(pointcloud=np.zeros((STEPS, POINTS, 3))),
     r"'pointcloud' of .*\[\*, \*, 2\] \(got \[12, 5, 3\]\)"),
    (dict(mask=np.zeros((STEPS, POINTS, 2))), r"'mask' of .*12, 5, 1\]"),
    (dict(mask=np.full((STEPS, POINTS), 9)), r'types from 0 to 8.*9 to 9'),
    (dict(mask=np.full((STEPS, POINTS), .5)), r'types from 0 to 8.*0\.5'),
    (dict(VY=np.zeros((STEPS, POINTS), complex)), 'complex128'),
    (dict(VY=np.full((STEPS, POINTS), 'a')), 'numbers'),
])
@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_bad_arrays(root, changes, match, save):
    write(root / 'Cre/1/1', 0, save, **changes)
    with pytest.raises(ValueError, match=match):
        EAGLE(root)[0]


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_pickles_are_not_run(root, save):
    trap = np.array([Trap(root / 'trap')], dtype=object)
    write(root / 'Cre/1/1', 0, save, VX=trap)
    with pytest.raises(ValueError, match='without pickled objects'):
        EAGLE(root)[0]
    for content in (trap.tolist(), trap):
        write(root / 'Cre/1/1', 0)
        with open(root / 'Cre/1/1/triangles.npy', 'wb') as file:
            if isinstance(content, list):
                pickle.dump(content, file)
            else:
                np.save(file, content, allow_pickle=True)
        with pytest.raises(ValueError, match=r'triangles.*without pickled'):
            EAGLE(root)[0]
    assert not (root / 'trap').exists()


@pytest.mark.parametrize('name', ['sim.npz', 'triangles.npy'])
def test_truncated_files(root, name):
    path = root / 'Cre/1/1' / name
    content = path.read_bytes()
    for size in (0, 5, 60, 200, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=f'{name}.*whole'):
            EAGLE(root)[0]


def test_damaged_archives(root):
    path = root / 'Cre/1/1/sim.npz'
    content = path.read_bytes()
    shape = f'({STEPS}, {POINTS})'.encode()
    path.write_bytes(content.replace(shape, b'(12, 4)'))
    with pytest.raises(ValueError, match=r'sim\.npz.*another size'):
        EAGLE(root)[0]
    path.write_bytes(content.replace(b'PK\x03\x04', b'PK\x03\x05'))
    with pytest.raises(ValueError, match=r'not where the archive says'):
        EAGLE(root)[0]
    write(root / 'Cre/1/1', 0, np.savez_compressed)
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'sim\.npz.*whole'):
        EAGLE(root)[0]


def test_bad_triangles(root):
    path = root / 'Cre/1/1/triangles.npy'
    triangles = np.load(path)
    for change, match in [
            (triangles + 1, r'its 5 points \(got indices from 1 to 5\)'),
            (triangles - 1, r'its 5 points \(got indices from -1 to 3\)'),
            (triangles[1:], r'shape \[12, \*, 3\] \(got \[11, 3, 3\]\)'),
            (triangles.astype(float), r'integers \(got float64\)')]:
        np.save(path, change)
        with pytest.raises(ValueError, match=match):
            EAGLE(root, start=0)[0]
    np.savez(path, triangles)
    os.replace(f'{path}.npz', path)
    with pytest.raises(ValueError, match=r'triangles.*an archive'):
        EAGLE(root)[0]
