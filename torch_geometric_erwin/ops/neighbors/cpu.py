r"""Nearest neighbours by the C++ kernel."""

import ctypes

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import library, pointer
from torch_geometric_erwin.ops.neighbors.problem import Problem

UNLIMITED = 2**63 - 1
SMALL = 4096  # queries that are done before a second thread has started


def neighbors(problem: Problem) -> Tensor:
    r"""Finds the neighbours of each query on all of torch's threads."""
    num_queries = problem.query_id.numel()
    # NumPy works on one thread: after a parallel operation torch's would spin
    # for a while, on the cores of those that a kernel may have to start.
    start = torch.from_numpy(np.zeros(num_queries + 1, dtype=np.int64))
    call(problem, count=start[1:])
    torch.cumsum(start[1:], 0, out=start[1:])
    out = problem.query_id.new_empty(2, int(start[-1]))
    call(problem, start=start, out=out)
    return out


def call(p: Problem, *, count: Tensor | None = None,
         start: Tensor | None = None, out: Tensor | None = None) -> None:
    r"""Counts the neighbours, or writes them from :obj:`start` on."""
    kernel = tge_neighbors()
    small = p.query.size(0) <= SMALL
    rows = (None, None) if out is None else (out[p.query_row],
                                             out[1 - p.query_row])
    status = kernel(
        p.pos.dtype == torch.float64,
        *map(pointer, (p.pos, p.leaf_ptr, p.cloud_leaf, p.id)),
        p.cloud_leaf.numel() - 1,
        p.pos.size(1),
        p.itself,
        *map(pointer, (p.query, p.query_ptr, p.query_id, p.box)),
        UNLIMITED if p.k is None else p.k,
        float(p.squared_radius()),
        not p.excludes,
        *map(pointer, (count, start, *rows)),
        1 if small else torch.get_num_threads(),
    )
    if status != 0:
        raise MemoryError(f"Not enough memory to search {p.query.size(0)} "
                          f"points' neighbours")


def tge_neighbors() -> 'ctypes._NamedFuncPointer':
    lib = library()
    assert lib is not None
    kernel = lib.tge_neighbors
    address, size, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    kernel.argtypes = [
        flag, *4 * [address], size, size, flag, *4 * [address], size,
        ctypes.c_double, flag, *4 * [address], flag
    ]
    kernel.restype = flag
    return kernel
