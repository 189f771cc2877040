import gzip
import io
import os
import os.path as osp
import shlex
import tarfile
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch_geometric.data import Data, InMemoryDataset

from torch_geometric_erwin.datasets.fingerprint import fingerprint, tell

FILE, PACKAGE = 'gals_Mr19.ff', 'corrfunc-2.5.3.tar.gz'
COMMAND = 'pip download --no-deps --no-binary Corrfunc Corrfunc==2.5.3'
BOX = 420.  # Mpc/h
HEADER = [20, 36, 4]  # bytes: five integers, nine numbers and the redshift


class GalaxyMock(InMemoryDataset):
    r"""The mock galaxies that come with `Corrfunc
    <https://corrfunc.readthedocs.io>`_, and on which the `"Corrfunc: A Suite
    of Blazing Fast Correlation Functions on the CPU"
    <https://arxiv.org/abs/1911.03545>`_ paper (Sinha and Garrison 2020) takes
    its times: 1,235,904 galaxies brighter than an SDSS magnitude of
    :math:`M_r = -19` in a periodic box of 420 Mpc/h. For scale, not for
    training: it is one cloud, and there is nothing to predict.

    It has :obj:`pos` of shape :math:`(N, 3)` in comoving Mpc/h, float32 as in
    the file, and :obj:`box` of shape :math:`(1, 3)` in Mpc/h. Positions are in
    :math:`[0, 420)`: one exactly at the upper edge is moved to zero, which is
    the same place. The file's fourth column is left out; it holds the random
    weights of Corrfunc's tests. Neither the file nor the package names the
    simulation that the galaxies are from.

    Nothing is downloaded. The galaxies are part of Corrfunc's source package
    (MIT license, 91 MB), which this leaves in :obj:`root/raw`:

    .. code-block:: sh

        pip download --no-deps --no-binary Corrfunc Corrfunc==2.5.3 \
            --dest root/raw

    They are read from there, from the file :obj:`theory/tests/data/
    gals_Mr19.ff` of that package if it lies there instead, or from
    :obj:`path`. The file has to stay: clouds are kept for each file as it is
    now.

    Args:
        root (str): Where to keep the cloud.
        path (str, optional): The source package (:obj:`.tar.gz`), or the file
            out of it, where it is not in :obj:`root/raw`. The file may hold
            any number of galaxies. (default: :obj:`None`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)
        pre_transform (callable, optional): Applied before the cloud is kept.
            (default: :obj:`None`)
        pre_filter (callable, optional): Whether to keep the cloud.
            (default: :obj:`None`)
        force_reload (bool, optional): Whether to read the file again.
            (default: :obj:`False`)

    Raises:
        FileNotFoundError: If there is no such file; says how to get it.
        ValueError: If the file is damaged or of another format, a position
            is not in the box, or :obj:`pre_transform` or :obj:`pre_filter`
            cannot be told from others of its kind.
    """
    def __init__(
        self,
        root: str,
        path: str | os.PathLike | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        self.file = find_file(osp.join(osp.expanduser(root), 'raw'), path)
        status = os.stat(self.file)
        self.key = fingerprint(
            type(self), self.file, status.st_size, status.st_mtime_ns,
            tell('pre_transform', pre_transform),
            tell('pre_filter', pre_filter))
        super().__init__(root, transform, pre_transform, pre_filter,
                         force_reload=force_reload)
        self.load(self.processed_paths[0])

    @property
    def raw_file_names(self) -> list[str]:
        return []

    @property
    def processed_dir(self) -> str:
        r"""Another file or other arguments have another place."""
        return osp.join(self.root, 'processed', self.key)

    @property
    def processed_file_names(self) -> str:
        return 'data.pt'

    def process(self) -> None:
        pos = torch.from_numpy(read_positions(self.file))
        data = Data(
            pos=torch.where(pos >= BOX, 0., pos),
            box=torch.full((1, 3), BOX),
        )
        if self.pre_filter is not None and not self.pre_filter(data):
            raise ValueError("Expected 'pre_filter' to keep the only cloud "
                             "(got none)")
        if self.pre_transform is not None:
            data = self.pre_transform(data)
        self.save([data], self.processed_paths[0])


def find_file(raw_dir: str, path: str | os.PathLike | None) -> str:
    r"""Returns where the galaxies are; the extracted file comes first."""
    if path is not None:
        places = [osp.abspath(osp.expanduser(os.fspath(path)))]
    else:
        places = [osp.abspath(osp.join(raw_dir, name))
                  for name in (FILE, PACKAGE)]
    for place in places:
        if osp.isfile(place):
            return place
    raise FileNotFoundError(
        f"Expected {' or '.join(map(repr, places))} to be a file (got none). "
        f"The galaxies are part of Corrfunc's source package, which is not "
        f"downloaded by itself (91 MB). Get it by\n\n    {COMMAND} --dest "
        f"{shlex.quote(raw_dir)}\n\nor pass the 'path' of a copy of it or of "
        f"its 'theory/tests/data/{FILE}'.")


def read_positions(path: str) -> np.ndarray:
    r"""Reads the positions, shape :math:`(N, 3)`, of a file in Corrfunc's
    "fast-food" format: what a Fortran program writes on a little-endian
    machine, a header of three records, of which only the number of galaxies
    counts, and a record for each coordinate, float32 or float64.
    """
    records = split_records(memoryview(read_bytes(path)), path)
    sizes = [len(record) for record in records]
    if sizes[:3] != HEADER:
        raise ValueError(f"Expected {path!r} to begin with records of "
                         f"{HEADER} bytes (got {sizes[:3]})")
    number = int(np.frombuffer(records[0], '<i4')[1])
    for width in (4, 8):
        if number > 0 and sizes[3:6] == [width * number] * 3:
            columns = [np.frombuffer(x, f'<f{width}') for x in records[3:6]]
            return check_positions(np.stack(columns, axis=1), path)
    raise ValueError(f"Expected {path!r} to have three records of 4 or 8 "
                     f"bytes for each of the galaxies that it counts, "
                     f"{number}, after its header (got {sizes[3:6]} bytes)")


def check_positions(pos: np.ndarray, path: str) -> np.ndarray:
    outside = ~((pos >= 0) & (pos <= BOX))  # and what is not a number
    if outside.any():
        raise ValueError(f"Expected the positions in {path!r} to be within "
                         f"0 and {BOX:g} Mpc/h (got {pos[outside][0]} and "
                         f"{outside.sum() - 1} more that are not)")
    return pos.astype(np.float32)


def split_records(content: memoryview, path: str) -> list[memoryview]:
    r"""Takes a file apart into its records: each stands between two numbers,
    of four bytes, that say how many bytes it has.
    """
    records, start = [], 0
    while start < len(content):
        size = int.from_bytes(content[start:start + 4], 'little')
        end = start + 4 + size + 4
        if end > len(content):
            raise ValueError(f"Expected {path!r} to have {end} bytes or more, "
                             f"as the record of {size} bytes at {start} says "
                             f"(got {len(content)})")
        again = int.from_bytes(content[end - 4:end], 'little')
        if again != size:
            raise ValueError(f"Expected the record at byte {start} of "
                             f"{path!r} to end with its size, {size}, as it "
                             f"begins (got {again})")
        records.append(content[start + 4:end - 4])
        start = end
    return records


def read_bytes(path: str) -> bytes:
    r"""Reads the file, out of the source package where that is given."""
    if not path.endswith(('.tar.gz', '.tgz')):
        with open(path, 'rb') as file:
            return file.read()
    try:
        with gzip.open(path) as file:  # to its end, where its checksum is
            content = io.BytesIO(file.read())
        with tarfile.open(fileobj=content) as archive:
            for member in archive:
                if osp.basename(member.name) == FILE and member.isfile():
                    found = archive.extractfile(member)
                    assert found is not None
                    return found.read()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile,
            zlib.error) as error:
        raise ValueError(f"Expected {path!r} to be an undamaged archive "
                         f"(got {error})") from error
    raise ValueError(f"Expected the archive {path!r} to hold {FILE!r} (got "
                     f"no such file)")
