r"""Loads the compiled CPU kernels, where they were built."""

import ctypes
import functools
import importlib.util
import os
import warnings

from torch import Tensor


@functools.cache
def library() -> ctypes.CDLL | None:
    r"""Returns the compiled kernels, or :obj:`None` where there are none.

    Installing without a C++ compiler leaves the extension out. Everything
    then runs in pure torch, with the same results; one warning says so.
    Setting the environment variable :obj:`TORCH_GEOMETRIC_ERWIN_NATIVE=0`
    leaves it out, too.
    """
    if os.environ.get('TORCH_GEOMETRIC_ERWIN_NATIVE', '1') == '0':
        return None
    spec = importlib.util.find_spec('torch_geometric_erwin._C')
    if spec is None or spec.origin is None:
        warnings.warn(
            "The C++ kernels of 'torch_geometric_erwin' were not built, so "
            "pure torch does their work, with the same results but more "
            "slowly. Install a C++ compiler and reinstall the package to get "
            "them.", stacklevel=2)
        return None
    return ctypes.CDLL(spec.origin)


def pointer(tensor: Tensor | None) -> int | None:
    r"""The address of a contiguous CPU tensor's first element."""
    if tensor is None:
        return None
    assert tensor.device.type == 'cpu' and tensor.is_contiguous()
    return tensor.data_ptr()
