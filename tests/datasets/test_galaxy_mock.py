import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.datasets import GalaxyMock
from torch_geometric_erwin.transforms import AddBallTree

FILE, PACKAGE = 'gals_Mr19.ff', 'corrfunc-2.5.3.tar.gz'
REAL = os.environ.get('GALAXY_MOCK', '')


def record(values, dtype) -> bytes:
    content = np.asarray(values, dtype).tobytes()
    size = np.array(len(content), '<u4').tobytes()
    return size + content + size


def fast_food(pos, dtype='<f4', number=None, weights=True) -> bytes:
    number = len(pos) if number is None else number
    columns = [*np.asarray(pos).T, *[np.ones(len(pos))] * weights]
    return b''.join([
        record([420, number, 0, 0, 0], '<i4'),
        record([420.] + 8 * [0.], '<f4'),
        record([0.], '<f4'),
        *[record(column, dtype) for column in columns],
    ])


def pack(content: bytes, name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
        for path, data in {'corrfunc-2.5.3/setup.py': b'1', name: content,
                           'corrfunc-2.5.3/z': bytes(9)}.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def pos():
    return np.random.default_rng(0).uniform(0, 420, (300, 3)).astype('f4')


@pytest.fixture
def put(tmp_path):
    r"""Writes a file, into the dataset's folder unless told otherwise."""
    def put(content: bytes, name: str = FILE, folder: str = 'raw') -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return str(path)

    return put


def check(dataset, pos):
    assert len(dataset) == 1
    data = dataset[0]
    assert sorted(data.keys()) == ['box', 'pos'] and data.validate()
    assert data.pos.dtype == torch.float and data.pos.is_contiguous()
    assert torch.equal(data.pos, torch.from_numpy(pos))
    assert data.box.tolist() == [[420.] * 3]


@pytest.mark.parametrize('weights', [True, False])
@pytest.mark.parametrize('dtype', ['<f4', '<f8'])
def test_file(tmp_path, put, pos, dtype, weights):
    put(fast_food(pos, dtype, weights=weights))
    check(GalaxyMock(str(tmp_path)), pos)


def test_package(tmp_path, put, pos):
    put(pack(fast_food(pos), f'corrfunc-2.5.3/theory/tests/data/{FILE}'),
        PACKAGE)
    check(GalaxyMock(str(tmp_path)), pos)
    put(fast_food(pos[:200]))  # comes first
    check(GalaxyMock(str(tmp_path)), pos[:200])


def test_path(tmp_path, put, pos):
    put(fast_food(pos[:100]))
    file = put(fast_food(pos), 'my.ff', 'mine')
    archive = put(pack(fast_food(pos[:200]), FILE), 'my.tar.gz', 'mine')
    check(GalaxyMock(str(tmp_path), file), pos)
    check(GalaxyMock(str(tmp_path), Path(archive)), pos[:200])
    check(GalaxyMock(str(tmp_path)), pos[:100])


def test_edge_of_the_box(tmp_path, put, pos):
    r"""The upper edge is the lower one, before and after rounding."""
    pos = pos.astype('f8')
    pos[0], pos[1] = 420, np.nextafter(420, 0)
    put(fast_food(pos, '<f8'))
    data = GalaxyMock(str(tmp_path))[0]
    assert data.pos[:2].tolist() == [[0.] * 3] * 2
    assert (data.pos >= 0).all() and (data.pos < 420).all()


def test_cloud_is_kept(tmp_path, put, pos):
    def make(**kwargs) -> GalaxyMock:
        return GalaxyMock(str(tmp_path), **kwargs)

    put(fast_food(pos))
    path = Path(make().processed_paths[0])
    before = path.stat().st_mtime_ns
    assert make().processed_paths == [str(path)]
    assert path.stat().st_mtime_ns == before
    other = make(pre_transform=AddBallTree(ball_size=64, box='box'))
    assert 'ball_tree_sizes' in other[0]
    assert 'ball_tree_sizes' not in make()[0]
    assert BallTree.from_data(other[0]).num_points == 300
    make(force_reload=True)
    assert path.stat().st_mtime_ns > before
    put(fast_food(pos[:200]))  # another file is another cloud
    check(make(), pos[:200])


def test_pre_filter(tmp_path, put, pos):
    put(fast_food(pos))
    kept = GalaxyMock(str(tmp_path), pre_filter=lambda data: True)
    check(kept, pos)
    with pytest.raises(ValueError, match="Expected 'pre_filter' to keep"):
        GalaxyMock(str(tmp_path / 'other'), kept.file,
                   pre_filter=lambda data: False)


def test_missing_file(tmp_path):
    raw = tmp_path / 'raw'
    with pytest.raises(FileNotFoundError) as error:
        GalaxyMock(str(tmp_path))
    for part in (str(raw / FILE), str(raw / PACKAGE),
                 f'pip download --no-deps --no-binary Corrfunc '
                 f'Corrfunc==2.5.3 --dest {raw}\n'):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match=r'(?s)nowhere.*pip download'):
        GalaxyMock(str(tmp_path), str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match='to be a file'):
        GalaxyMock(str(tmp_path), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('length, message', [
    (0, r'begin with records of \[20, 36, 4\] bytes \(got \[\]\)'),
    (2, r'have 28 bytes or more, .* \(got 2\)'),
    (84, r'300, after its header \(got \[\] bytes\)'),
    (-1, r'have 4916 bytes or more, .*1200 bytes at 3708 .*\(got 4915\)'),
    (-1208, r'1200, 1200\] bytes'),
])
def test_truncated_file(tmp_path, put, pos, length, message):
    content = fast_food(pos, weights=False)
    assert len(content) == 84 + 3 * 1208
    if message.startswith('have 4916'):
        content = fast_food(pos)
    path = put(content[:length])
    with pytest.raises(ValueError, match=f"Expected '{path}' to .*{message}"):
        GalaxyMock(str(tmp_path))


def test_wrong_markers(tmp_path, put, pos):
    content = bytearray(fast_food(pos))
    for start, message in [
        (24, 'record at byte 0 of .* its size, 20, .*got 21'),
        (84 + 1204, 'record at byte 84 of .* its size, 1200, .*got 1201'),
        (28, 'record at byte 28 of .* its size, 37, .*got'),
    ]:
        broken = content.copy()
        broken[start] += 1
        put(bytes(broken))
        with pytest.raises(ValueError, match=message):
            GalaxyMock(str(tmp_path))


@pytest.mark.parametrize('number', [-1, 0, 299, 600])
def test_wrong_number(tmp_path, put, pos, number):
    put(fast_food(pos, number=number))
    message = rf'galaxies that it counts, {number}, .*\[1200, 1200, 1200\]'
    with pytest.raises(ValueError, match=message):
        GalaxyMock(str(tmp_path))


def test_other_format(tmp_path, put, pos):
    put(record([1.], '<f4') + fast_food(pos))
    with pytest.raises(ValueError, match=r'\(got \[4, 20, 36\]\)'):
        GalaxyMock(str(tmp_path))
    put(b'x,y,z\n' + b'1.0,2.0,3.0\n' * 99)
    with pytest.raises(ValueError, match='bytes or more, as the record'):
        GalaxyMock(str(tmp_path))


@pytest.mark.parametrize('dtype', ['<f4', '<f8'])
@pytest.mark.parametrize('value', [
    float('nan'), float('inf'), -1e-3, 420.1])
def test_wrong_positions(tmp_path, put, pos, value, dtype):
    pos[7, 1] = pos[9, 2] = value
    put(fast_food(pos, dtype))
    message = (rf'positions in .* within 0 and 420 Mpc/h \(got {value:.3g}.* '
               r'and 1 more')
    with pytest.raises(ValueError, match=message):
        GalaxyMock(str(tmp_path))


def test_damaged_package(tmp_path, put, pos):
    content = pack(fast_food(pos), FILE)
    broken = bytearray(content)
    broken[len(broken) // 2] ^= 255
    half = content[:len(content) // 2]
    for damaged in (b'', b'<html>', half, content[:-1], bytes(broken)):
        path = put(damaged, PACKAGE)
        with pytest.raises(ValueError, match=f"Expected '{path}' to be an "
                           'undamaged archive'):
            GalaxyMock(str(tmp_path))
    put(pack(fast_food(pos), 'other.ff'), PACKAGE)
    with pytest.raises(ValueError, match=f"to hold '{FILE}'"):
        GalaxyMock(str(tmp_path))


@pytest.mark.skipif(not REAL, reason='GALAXY_MOCK is not the path of a copy')
def test_real_galaxies(tmp_path):
    data = GalaxyMock(str(tmp_path), REAL)[0]
    assert data.pos.shape == (1_235_904, 3) and data.pos.dtype == torch.float
    assert (data.pos >= 0).all() and (data.pos < 420).all()
    assert (data.pos.amin(0) < 1e-3).all() and (data.pos.amax(0) > 419).all()
    assert data.box.tolist() == [[420.] * 3]
    # As the documentation of Corrfunc prints them:
    expected = torch.tensor([[419.94550, 1.96340, 0.01610],
                             [419.88272, 1.79736, 0.11960]])
    assert torch.allclose(data.pos[:2], expected, atol=1e-5)
    # Galaxies cluster: far more of them share cells than at random.
    cell = (data.pos / 5).long()
    cell = cell[:, 0] * 84**2 + cell[:, 1] * 84 + cell[:, 2]
    count = cell.bincount(minlength=84**3).double()
    assert count.var() > 5 * count.mean()
