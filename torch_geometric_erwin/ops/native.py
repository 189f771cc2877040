r"""Loads the compiled CPU kernels, where they were built."""

import ctypes
import functools
import importlib.util
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

LARGE = 2**22  # bytes, from which on NumPy asks for large pages, too
AMPERE = 8, 0
VECTORS = 'portable', 'avx2', 'avx512'


@functools.cache
def library() -> ctypes.CDLL | None:
    r"""Returns the compiled kernels, or :obj:`None` where there are none.

    Installing without a C++ compiler leaves the extension out. Everything
    then runs in pure torch, with the same results; one warning says so.
    Setting the environment variable :obj:`TORCH_GEOMETRIC_ERWIN_NATIVE=0`
    leaves it out, too.
    """
    if not wanted():
        return None
    spec = importlib.util.find_spec('torch_geometric_erwin._C')
    if spec is None or spec.origin is None:
        warnings.warn(
            "The C++ kernels of 'torch_geometric_erwin' were not built, so "
            "pure torch does their work, with the same results but more "
            "slowly. Install a C++ compiler and reinstall the package to get "
            "them.", stacklevel=2)
        return None
    lib = ctypes.CDLL(spec.origin)
    if _forked or multiprocessing.parent_process() is not None:
        lib.tge_leave_openmp()
    return lib


_forked: list[bool] = []  # not empty after a fork
if hasattr(os, 'register_at_fork'):
    # Before the kernels are loaded, which note a fork by themselves.
    os.register_at_fork(after_in_child=lambda: _forked.append(True))


def isa_level(most: int) -> int:
    r"""Returns which variant runs where :obj:`most` is allowed: 0 for what
    every machine has, 1 for AVX2, 2 for AVX-512.
    """
    lib = library()
    return -1 if lib is None else lib.tge_isa_level(most)


def widest() -> int:
    r"""Returns which variant kernels may run at most, as :meth:`isa_level`
    counts: what the environment variable
    :obj:`TORCH_GEOMETRIC_ERWIN_VECTORS` says, :obj:`portable`, :obj:`avx2` or
    :obj:`avx512` (the default).
    """
    name = os.environ.get('TORCH_GEOMETRIC_ERWIN_VECTORS', VECTORS[-1])
    if name not in VECTORS:
        raise ValueError(f"Expected the environment variable "
                         f"'TORCH_GEOMETRIC_ERWIN_VECTORS' to be one of "
                         f"{', '.join(VECTORS)} (got {name!r})")
    return VECTORS.index(name)


def wanted() -> bool:
    r"""Whether compiled code may be used at all."""
    return os.environ.get('TORCH_GEOMETRIC_ERWIN_NATIVE', '1') != '0'


@torch.compiler.assume_constant_result
def has_triton() -> bool:
    r"""Whether Triton can compile kernels for all of the GPUs."""
    return _has_triton()


@functools.cache
def _has_triton() -> bool:
    if not wanted() or torch.version.cuda is None:
        return False
    if not torch.cuda.is_available() or not any(
            map(shutil.which, (os.environ.get('CC', 'cc'), 'gcc', 'clang'))):
        return False  # launchers are compiled, too
    return importlib.util.find_spec('triton') is not None and all(
        torch.cuda.get_device_capability(i) >= AMPERE
        for i in range(torch.cuda.device_count()))


_tried: dict[tuple[object, ...], bool] = {}


def works(what: str, trial: Callable[[], bool], *case: object) -> bool:
    r"""Whether Triton kernels pass a trial in such a :obj:`case`; a warning
    says so if not. Remembers the answer, unless the machine was at fault: a
    file that could not be written may be the next time. That memory ran out,
    or that the GPU is lost, is not for other operations to mend.
    """
    case = what, *case
    if case in _tried:
        return _tried[case]
    lasting = True
    try:
        passed, why = trial(), 'their results are wrong'
    except Exception as error:
        if _is_of_the_gpu(error):
            raise
        lasting = not isinstance(error, OSError)
        passed, why = False, f'{type(error).__name__}: {error}'
    if lasting:
        _tried[case] = passed
    if not passed:
        warnings.warn(
            f"The Triton kernels for {what} do not work here, so PyTorch's "
            f"operations do their work, with the same results but more "
            f"slowly ({why})", stacklevel=2)
    return passed


def _is_of_the_gpu(error: Exception) -> bool:
    kinds = torch.OutOfMemoryError, getattr(torch, 'AcceleratorError', ())
    return isinstance(error, kinds) or 'out of memory' in str(error)


def pointer(tensor: Tensor | None) -> int | None:
    r"""The address of a contiguous CPU tensor's first element."""
    if tensor is None:
        return None
    assert tensor.device.type == 'cpu' and tensor.is_contiguous()
    return tensor.data_ptr()


def fresh(like: Tensor, *shape: int,
          dtype: torch.dtype | None = None) -> Tensor:
    r"""Returns memory for a result, in large pages if that is a lot."""
    out = like.new_empty(shape, dtype=dtype)
    lib = library()
    if out.nbytes >= LARGE and lib is not None:
        lib.tge_use_large_pages(ctypes.c_void_p(out.data_ptr()),
                                ctypes.c_int64(out.nbytes))
    return out
