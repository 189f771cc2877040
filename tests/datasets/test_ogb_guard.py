import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from torch_geometric_erwin.datasets.ogb_guard import ogb_files, quiet_import

ROOT = Path(__file__).parents[2]
IMPORT = '''
import os, socket, sys, threading
calls = []
for name in ('connect', 'connect_ex', 'sendto'):
    setattr(socket.socket, name, lambda *args: calls.append(args))
socket.getaddrinfo = lambda *args, **kwargs: calls.append(args)
import benchmarks.graphs.data.ogb
import ogb.lsc
assert threading.enumerate() == [threading.main_thread()]
assert 'outdated' not in sys.modules and 'OUTDATED_IGNORE' not in os.environ
assert not calls, calls
'''


class Other:
    pass


def test_import_opens_no_connection():
    pytest.importorskip('rdkit')
    with quiet_import():
        pytest.importorskip('ogb')
    env = {key: value for key, value in os.environ.items()
           if key != 'OUTDATED_IGNORE'}
    subprocess.run([sys.executable, '-c', IMPORT], cwd=ROOT, check=True,
                   env=env, timeout=120)


@pytest.mark.parametrize('value', [None, '0'])
def test_quiet_import_puts_things_back(monkeypatch, value):
    monkeypatch.delenv('OUTDATED_IGNORE', raising=False)
    if value is not None:
        monkeypatch.setenv('OUTDATED_IGNORE', value)
    monkeypatch.setitem(sys.modules, 'outdated', os)
    with pytest.raises(KeyError), quiet_import():
        os.environ['OUTDATED_IGNORE'] = '1'
        with pytest.raises(ImportError):
            import outdated  # noqa: F401
        raise KeyError
    assert sys.modules['outdated'] is os
    assert os.environ.get('OUTDATED_IGNORE') == value


def test_ogb_files_reads_graphs(tmp_path):
    data = Data(x=torch.ones(2, 3), num_nodes=2)
    slices = {'x': torch.tensor([0, 2]), '_inc': np.zeros(3)}
    torch.save((data, slices), tmp_path / 'data.pt')
    before = set(torch.serialization.get_safe_globals())
    with ogb_files():
        out, _ = torch.load(tmp_path / 'data.pt')
    assert torch.equal(out.x, data.x)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize('core', ['numpy._core', 'numpy.core'])
def test_ogb_files_reads_arrays(tmp_path, core):
    r"""Whatever version of NumPy they were written by."""
    new, old = tmp_path / 'new.pt', tmp_path / 'split.pt'
    split = {'train': np.arange(3), 'valid': np.arange(2.)}
    torch.save(split | {'number': np.int64(3)}, new)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, 'w') as target:
        for name in source.namelist():
            text = source.read(name)
            for module in (b'numpy._core', b'numpy.core'):
                text = text.replace(module + b'.multiarray',
                                    core.encode() + b'.multiarray')
            target.writestr(name, text)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(old)
    with ogb_files():
        out = torch.load(old)
    assert np.array_equal(out['train'], split['train'])
    assert np.array_equal(out['valid'], split['valid'])
    assert out['number'] == 3


def test_ogb_files_reads_nothing_else(tmp_path):
    torch.save(Other(), tmp_path / 'other.pt')
    with ogb_files(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'other.pt')
