r"""Opens the arrays of MATLAB's files, old ones with SciPy, and those of
version 7.3, which are HDF5, with h5py.
"""

from typing import Any, NamedTuple

import numpy as np

from torch_geometric_erwin.datasets.array_files import (
    check_numbers,
    check_shape,
    import_optional,
    unreadable,
)

USER = 'PDEBenchmark'
HDF5 = b'\x89HDF\r\n\x1a\n'
Shapes = dict[str, tuple[int | None, ...]]


class OldMat:
    r"""Arrays whose first dimension is that of samples, held in memory."""
    def __init__(self, path: str, shapes: Shapes) -> None:
        io = import_optional('scipy.io', USER)
        try:
            found = io.loadmat(path, variable_names=list(shapes))
            arrays = {name: check_numbers(path, found[name])
                      for name in shapes}
        except Exception as error:  # readers raise what they stumble upon
            raise broken(path, shapes, error) from error
        self.arrays = arrays
        self.num_samples = count_samples(path, arrays, shapes)

    def read(self, name: str, i: int, at: int | None = None) -> np.ndarray:
        r"""Reads a sample, or what is at an index of its last dimension but
        one.
        """
        value = self.arrays[name][i]
        return value if at is None else value[..., at, :]


class Turned(NamedTuple):
    shape: tuple[int, ...]


class NewMat:
    r"""Arrays whose first dimension is that of samples, which is the last in
    the file. Nothing is held in memory.
    """
    def __init__(self, path: str, shapes: Shapes) -> None:
        h5py = import_optional('h5py', USER)
        try:
            with h5py.File(path, 'r') as file:
                arrays = {name: Turned(check_numbers(
                    path, file[name]).shape[::-1]) for name in shapes}
        except Exception as error:  # readers raise what they stumble upon
            raise broken(path, shapes, error) from error
        self.path = path
        self.num_samples = count_samples(path, arrays, shapes)

    def read(self, name: str, i: int, at: int | None = None) -> np.ndarray:
        r"""Reads a sample, or what is at an index of its last dimension but
        one.
        """
        # Open files do not survive in the workers of a loader.
        h5py = import_optional('h5py', USER)
        with h5py.File(self.path, 'r') as file:
            where = (..., i) if at is None else (slice(None), at, ..., i)
            return file[name][where].T


def open_mat(path: str, shapes: Shapes) -> OldMat | NewMat:
    with open(path, 'rb') as file:
        start = file.read(520)
    # MATLAB puts 512 bytes of its own before the contents.
    new = HDF5 in (start[:8], start[512:])
    return NewMat(path, shapes) if new else OldMat(path, shapes)


def count_samples(path: str, arrays: dict[str, Any], shapes: Shapes) -> int:
    for name, shape in shapes.items():
        check_shape(path, arrays[name], shape, f'{name!r}')
    sizes = [arrays[name].shape[0] for name in shapes]
    if len(set(sizes)) != 1:
        raise ValueError(f"Expected the arrays {list(shapes)} of {path!r} to "
                         f"have as many samples each (got {sizes})")
    return sizes[0]


def broken(path: str, shapes: Shapes, error: Exception) -> ValueError:
    return unreadable(path, f'arrays {list(shapes)} of numbers in the format '
                      f'of MATLAB', repr(error))
