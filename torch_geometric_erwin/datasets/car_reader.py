r"""Reads the files of one car."""

import os.path as osp
import pickle
import re

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.datasets.array_files import (
    check_corners,
    check_shape,
    find_file,
    import_optional,
    open_npy,
    unreadable,
)

SURFACE, VOLUME = 'quadpress_smpl.vtk', 'hexvelo_smpl.vtk'
POINTS, PRESSURES = 'mesh_points.th', 'pressure.th'
SOURCE = ('ShapeNet-Car (http://www.nobuyuki-umetani.com/publication/'
          'mlcfd_data.zip)')


def read_mesh(folder: str, name: str, kind: str) -> tuple[Tensor, Tensor]:
    r"""Returns the points :math:`(N, 3)` and the cells of a mesh, all of one
    kind.
    """
    meshio = import_optional('meshio', 'ShapeNetCar')
    path = find_file(folder, name, SOURCE)
    try:
        # Not `meshio.read`, which ends the process where it fails.
        mesh = meshio.vtk.read(path)
        kinds = [block.type for block in mesh.cells]
    except Exception as error:  # readers raise what they stumble upon
        raise unreadable(path, 'a mesh in the format of VTK',
                         repr(error)) from error
    if kinds != [kind]:
        raise ValueError(f"Expected {path!r} to have one block of cells, "
                         f"{kind!r} (got {kinds})")
    points, cells = mesh.points, mesh.cells[0].data
    check_count(path, len(cells))
    check_shape(path, points, (None, 3), 'the points')
    check_corners(path, cells, len(points))
    return (torch.from_numpy(points.astype(np.float32)),
            torch.from_numpy(cells.astype(np.int64)))


def check_count(path: str, num_cells: int) -> None:
    r"""Checks that no cell is missing: where a file is cut short, meshio
    returns those that are left.
    """
    with open(path, 'rb') as file:
        counts = re.findall(rb'\nCELL_TYPES\s+(\d+)\s', file.read())
    if [int(count) for count in counts] != [num_cells]:
        raise unreadable(path, 'as many cells as it says', num_cells)


def read_values(folder: str, name: str, *shapes: tuple[int, ...]) -> Tensor:
    r"""Returns an array of one of some shapes, in the first of them."""
    path = find_file(folder, name, SOURCE)
    array = open_npy(path)
    if array.shape not in shapes:
        check_shape(path, array, shapes[0])
    return torch.from_numpy(array.astype(np.float32)).view(shapes[0])


def read_drag(folder: str) -> Tensor:
    path = find_file(folder, 'cd.txt', SOURCE)
    with open(path, errors='replace') as file:
        words = file.read(1000).split()
    try:
        drag, = (float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"Expected {path!r} to hold one number "
                         f"(got {words[:3]})") from error
    return torch.tensor([drag])


def read_surface(folder: str) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the points that quads are made of, their pressures
    :math:`(N, 1)`, and the quads.
    """
    points, quads = read_mesh(folder, SURFACE, 'quad')
    pressure = read_values(folder, 'press.npy', (len(points),))
    used, quads = quads.unique(return_inverse=True)
    return points[used], pressure[used].unsqueeze(1), quads


def read_preprocessed(folder: str) -> tuple[Tensor, Tensor]:
    r"""Returns points and their pressures :math:`(N, 1)`."""
    points = load_tensor(folder, POINTS)
    check_shape(osp.join(folder, POINTS), points, (None, 3), 'the tensor')
    pressure = load_tensor(folder, PRESSURES)
    check_shape(osp.join(folder, PRESSURES), pressure, (len(points),),
                'the tensor')
    return points.float(), pressure.float().unsqueeze(1)


def load_tensor(folder: str, name: str) -> Tensor:
    path = find_file(folder, name, SOURCE)
    try:
        value = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError,
            KeyError, OSError, TypeError) as error:
        raise unreadable(path, 'a tensor', repr(error)) from error
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value)
        raise unreadable(path, 'a tensor of real numbers', got)
    return value
