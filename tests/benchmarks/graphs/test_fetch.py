import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from benchmarks.graphs.data.fetch import Archive, keep, provide


def archive(root: Path) -> Archive:
    return Archive('http://example.org/data/hiv.zip', str(root), 'hiv',
                   str(root / 'ogbg_molhiv'), ('RELEASE_v1.txt', 'raw/a.gz'))


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as target:
        for name in names:
            target.writestr(name, 'text')
    return file.getvalue()


WHOLE = zipped('hiv/RELEASE_v1.txt', 'hiv/raw/a.gz')


def test_missing(tmp_path):
    for _ in range(2):  # nor does the first time change the second
        with pytest.raises(FileNotFoundError) as error:
            provide(archive(tmp_path))
        for text in ('http://example.org/data/hiv.zip', "'hiv.zip'",
                     f"'{tmp_path}'", 'there is no network'):
            assert text in str(error.value)
        assert os.listdir(tmp_path) == []


def test_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr('urllib.request.urlopen', pytest.fail)
    with pytest.raises(FileNotFoundError, match='switched off'):
        provide(archive(tmp_path), download=False)


def test_archive_put_there(tmp_path):
    (tmp_path / 'hiv.zip').write_bytes(WHOLE)
    provide(archive(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ['hiv.zip', 'ogbg_molhiv']
    assert (tmp_path / 'ogbg_molhiv' / 'raw' / 'a.gz').read_text() == 'text'
    (tmp_path / 'hiv.zip').unlink()
    provide(archive(tmp_path))


def test_download(tmp_path, monkeypatch):
    class Response(io.BytesIO):
        def info(self):
            return {'Content-Length': 2**31}  # where OGB would ask

    monkeypatch.setattr('urllib.request.urlopen',
                        lambda url: Response(WHOLE))
    provide(archive(tmp_path))
    assert os.listdir(tmp_path) == ['ogbg_molhiv']
    path = keep('http://example.org/a.sdf', str(tmp_path))
    monkeypatch.undo()
    assert keep('http://example.org/a.sdf', str(tmp_path)) == path
    assert Path(path).read_bytes() == WHOLE


def test_leftovers_of_ogb(tmp_path):
    r"""A download of OGB's that failed leaves an empty folder, about which it
    asks next time.
    """
    (tmp_path / 'ogbg_molhiv' / 'raw').mkdir(parents=True)
    (tmp_path / 'hiv.zip').write_bytes(WHOLE)
    provide(archive(tmp_path))
    assert (tmp_path / 'ogbg_molhiv' / 'RELEASE_v1.txt').is_file()


def test_not_whole(tmp_path):
    (tmp_path / 'hiv.zip').write_bytes(WHOLE[:-30])
    with pytest.raises(RuntimeError, match='to be a whole zip archive'):
        provide(archive(tmp_path))
    (tmp_path / 'hiv.zip').write_bytes(zipped('hiv/RELEASE_v1.txt'))
    for _ in range(2):
        with pytest.raises(RuntimeError, match='got no raw'):
            provide(archive(tmp_path))
    shutil.rmtree(tmp_path / 'ogbg_molhiv')
    (tmp_path / 'hiv.zip').write_bytes(zipped('other/RELEASE_v1.txt'))
    with pytest.raises(RuntimeError, match="folder 'hiv'"):
        provide(archive(tmp_path))
