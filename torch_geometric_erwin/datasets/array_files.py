r"""Opens the arrays of NumPy's files without reading them whole, and without
ever running what is pickled in them.
"""

import importlib
import os.path as osp
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

# What may be wrong with a file: cut short, another format, objects inside.
BROKEN = (ValueError, EOFError, KeyError, OSError, struct.error, zlib.error,
          zipfile.BadZipFile)


def find_file(root: str, name: str, source: str) -> str:
    r"""Returns the path of a file below :obj:`root`."""
    path = osp.join(root, name)
    if not osp.isfile(path):
        raise FileNotFoundError(f"Expected 'root' to hold the file {name!r} "
                                f"of {source} (got no {path!r})")
    return path


def open_npy(path: str) -> np.ndarray:
    r"""Maps an array into memory."""
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except BROKEN as error:
        raise unreadable(path, 'one array of numbers', error) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise unreadable(path, 'one array of numbers', 'an archive')
    return check_numbers(path, array)


def open_npz(path: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    r"""Opens members of an archive: those that are stored are mapped into
    memory, those that are compressed are read whole.
    """
    what = f'an archive of the arrays {list(names)}'
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: check_numbers(path, open_member(
                path, archive, archive.getinfo(f'{name}.npy')))
                for name in names}
    except BROKEN as error:
        raise unreadable(path, what, error) from error


def open_member(path: str, archive: zipfile.ZipFile,
                info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type == zipfile.ZIP_STORED:
        return map_member(path, info)
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def map_member(path: str, info: zipfile.ZipInfo) -> np.ndarray:
    with open(path, 'rb') as file:
        start = find_member(file, info)
        shape, fortran, dtype = read_header(file)
        offset = file.tell()
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject or offset + size != start + info.file_size:
        raise ValueError(f'{info.filename} holds objects or has another size '
                         f'than its header says')
    if size == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, 'r', offset, shape,
                     'F' if fortran else 'C')


def find_member(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    r"""Goes to where the bytes of a member begin: after a header of its own,
    whose last two fields are not those of the archive's directory.
    """
    file.seek(info.header_offset)
    header = struct.unpack('<4s22xHH', file.read(30))
    if header[0] != b'PK\x03\x04':
        raise ValueError(f'{info.filename} is not where the archive says')
    return file.seek(header[1] + header[2], 1)


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f'version {version} of the format')


def check_numbers(path: str, array: Any) -> Any:
    dtype = getattr(array, 'dtype', np.dtype(object))
    if hasattr(array, 'nnz') or dtype.kind not in 'biuf' or (
            dtype.itemsize > 8):
        raise unreadable(path, 'dense arrays of numbers', dtype)
    return array


def check_shape(path: str, array: Any, shape: Sequence[int | None],
                name: str = 'the array') -> None:
    r"""Checks a shape; :obj:`None` stands for any length."""
    got = tuple(array.shape)
    if len(got) != len(shape) or any(
            want not in (None, size)
            for want, size in zip(shape, got, strict=True)):
        wanted = ', '.join('*' if n is None else str(n) for n in shape)
        raise ValueError(f"Expected {name} of {path!r} to have the shape "
                         f"[{wanted}] (got {list(got)})")


def check_corners(path: str, corners: np.ndarray, num_points: int) -> None:
    r"""Checks that cells are made of points that exist."""
    if corners.dtype.kind not in 'iu':
        raise ValueError(f"Expected the cells of {path!r} to be integers "
                         f"(got {corners.dtype})")
    low, high = (int(corners.min()), int(corners.max())) if (
        corners.size) else (0, 0)
    if corners.size and (low < 0 or high >= num_points):
        raise ValueError(f"Expected the cells of {path!r} to be made of its "
                         f"{num_points} points (got indices from {low} to "
                         f"{high})")


def is_count(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)
            and value >= 0)


def unreadable(path: str, what: str, got: object) -> ValueError:
    return ValueError(f"Expected {path!r} to hold {what}, whole and without "
                      f"pickled objects (got {got})")


def import_optional(name: str, user: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{user!r} requires '{name.split('.')[0]}' (run `pip install "
            f"'torch_geometric_erwin[benchmarks]'`)") from error
