r"""Scopes within which :obj:`ogb` is imported and its files are read."""

import _codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

SWITCH = 'OUTDATED_IGNORE'


@contextmanager
def quiet_import() -> Iterator[None]:
    r"""Imports of :obj:`ogb` within do not reach for the network.

    On import, :obj:`ogb` starts a thread that asks an index of packages for
    its newest version, and that a process waits for at its end. Where
    :obj:`outdated`, which does the asking, cannot be imported, it lets that
    be. It also sets an environment variable, which is put back.
    """
    absent = object()
    module: Any = sys.modules.get('outdated', absent)
    before = os.environ.get(SWITCH)
    sys.modules['outdated'] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules['outdated']
        if module is not absent:
            sys.modules['outdated'] = module
        os.environ.pop(SWITCH, None)
        if before is not None:
            os.environ[SWITCH] = before


@contextmanager
def ogb_files() -> Iterator[None]:
    r"""Calls of :func:`torch.load` within read the files of :obj:`ogb`, which
    leaves :obj:`weights_only` at its default: graphs, and splits as arrays
    of NumPy, old and new. Nothing else is allowed on top of that.
    """
    known = torch.serialization.get_safe_globals()
    # Whatever is named here is taken off the list again at the end.
    added = [entry for entry in needed() if entry not in known]
    with torch.serialization.safe_globals(added):
        yield


def needed() -> list[Any]:
    graphs = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
    rebuild = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0.).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in 'bilqfd']
    # Pickles name functions by the module that held them then.
    arrays = [(function, f'numpy.{core}.multiarray.{name}')
              for function, name in ((rebuild, '_reconstruct'),
                                     (scalar, 'scalar'))
              for core in ('core', '_core')]
    return [*graphs, *arrays, np.ndarray, np.dtype, *dtypes, _codecs.encode]
