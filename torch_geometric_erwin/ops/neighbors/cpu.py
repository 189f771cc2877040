r"""Nearest neighbours by the C++ kernel."""

import ctypes
import functools

import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import fresh, library, pointer, widest
from torch_geometric_erwin.ops.neighbors.cells import too_many_images
from torch_geometric_erwin.ops.neighbors.problem import Problem

UNLIMITED = 2**62
TOO_MANY = 3  # as the kernel says it
BEST = widest()  # of the variants
ADDRESS, SIZE, FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
SMALL = 512  # queries that are done before a second thread has started


def neighbors(problem: Problem,
              most: int = BEST) -> tuple[Tensor, Tensor | None]:
    r"""Finds the neighbours of each query on all of torch's threads, with
    instructions of at most a level.
    """
    small = problem.query.size(0) <= SMALL
    threads = 1 if small else torch.get_num_threads()
    found, total = find(problem, threads, most)
    try:
        return write(problem, found, total, threads)
    finally:
        function('tge_neighbors_free', ADDRESS)(found)


def find(p: Problem, threads: int, most: int) -> tuple[int | None, int]:
    r"""Returns where the kernel keeps what it has found, and how many
    neighbours that is.
    """
    kernel = function('tge_neighbors_find', FLAG, *4 * [ADDRESS], SIZE, SIZE,
                      FLAG, *6 * [ADDRESS], SIZE, ctypes.c_double,
                      *4 * [FLAG], *2 * [ADDRESS])
    total, found = ctypes.c_int64(), ctypes.c_void_p()
    cells = (None, None, None) if p.cells is None else (
        p.cells.vectors, p.cells.dual, p.cells.whole)
    status = kernel(
        p.pos.dtype == torch.float64,
        *map(pointer, (p.pos, p.leaf_ptr, p.cloud_leaf, p.id)),
        p.cloud_leaf.numel() - 1,
        p.pos.size(1),
        p.itself,
        *map(pointer, (p.query, p.query_ptr, p.query_id, *cells)),
        UNLIMITED if p.k is None else min(p.k, UNLIMITED),
        float(p.squared_radius()),
        not p.excludes,
        p.shifts,
        threads,
        most,
        ctypes.addressof(total),
        ctypes.addressof(found),
    )
    if status == TOO_MANY:
        raise too_many_images()
    if status != 0:
        raise MemoryError(f"Not enough memory to search {p.query.size(0)} "
                          f"points' neighbours")
    return found.value, total.value


def write(p: Problem, found: int | None, total: int,
          threads: int) -> tuple[Tensor, Tensor | None]:
    out = fresh(p.query_id, 2, total)
    shift = fresh(p.query_id, total, p.pos.size(1)) if p.shifts else None
    kernel = function('tge_neighbors_write', *6 * [ADDRESS], SIZE, FLAG)
    kernel(found, *map(pointer, (out[p.query_row], out[1 - p.query_row],
                                 shift, p.moved_query, p.moved)),
           p.sign, threads)
    return out, shift


@functools.cache
def function(name: str, *types: type) -> 'ctypes._NamedFuncPointer':
    lib = library()
    assert lib is not None
    kernel = getattr(lib, name)
    kernel.argtypes = types
    kernel.restype = FLAG if name == 'tge_neighbors_find' else None
    return kernel
