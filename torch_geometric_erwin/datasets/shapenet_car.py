import os
import os.path as osp
from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from torch_geometric_erwin.datasets.array_files import find_file
from torch_geometric_erwin.datasets.car_reader import (
    POINTS,
    PRESSURES,
    SOURCE,
    SURFACE,
    VOLUME,
    read_drag,
    read_mesh,
    read_preprocessed,
    read_surface,
    read_values,
)
from torch_geometric_erwin.datasets.car_volume import join
from torch_geometric_erwin.datasets.drawn import expect
from torch_geometric_erwin.datasets.meshes import (
    QUAD,
    edges_of_cells,
    split_quads,
)

FOLDERS = tuple(f'param{i}' for i in range(9))
FILES = {'surface': (SURFACE, 'press.npy'),
         'volume': (SURFACE, 'press.npy', VOLUME, 'velo.npy', 'cd.txt')}
# Folders of the release without a surface; the benchmark leaves them out.
INCOMPLETE = ('param2/854bb96a96a4d1b338acbabdc1252e2f',
              'param2/85bb9748c3836e566f81b21e2305c824',
              'param5/9ec13da6190ab1a3dd141480e2c154d3',
              'param8/c5079a5b8d59220bc3fb0d224baae2a')
NUM_CARS, NUM_TEST = 889, 189
DOMAIN = ((-2., -1., -4.5), (2., 4.5, 6.))


class ShapeNetCar(Dataset):
    r"""The flow around 889 cars, from the `"Learning Three-dimensional Flow
    for Interactive Aerodynamic Design"
    <https://doi.org/10.1145/3197517.3201325>`_ paper, one
    :class:`~torch_geometric.data.Data` per car.

    The dataset has to be downloaded from `its page
    <http://www.nobuyuki-umetani.com/publication/mlcfd_data.zip>`_.
    :obj:`root` holds the folders :obj:`param0` to :obj:`param8`, and these
    hold a folder for each car, as unpacked (:obj:`quadpress_smpl.vtk`,
    :obj:`press.npy`, :obj:`hexvelo_smpl.vtk`, :obj:`velo.npy`,
    :obj:`cd.txt`; reading meshes requires :obj:`meshio`), or
    :obj:`root/preprocessed` holds them, with :obj:`mesh_points.th` and
    :obj:`pressure.th`, which have no meshes. The four folders of the release
    that have no surface are left out. Files are read at each access.

    For :obj:`task="surface"`, a car of :math:`N` points (3,586; those that
    are in no quad are dropped) has

    - :obj:`pos` :math:`(N, 3)` and :obj:`y` :math:`(N, 1)`, the pressure,
      both in the units of the files.
    - :obj:`face` :math:`(3, 2Q)`, the two triangles of each of :math:`Q`
      quads, and :obj:`edge_index`, the sides of the quads in both
      directions, where the files have them.

    For :obj:`task="volume"`, the nodes are the points of the air (29,498)
    that are not on the surface, followed by those of the surface, and have

    - :obj:`pos` :math:`(N, 3)` and :obj:`y` :math:`(N, 4)`, the velocity and
      the pressure, which is known at the surface only, and zero elsewhere.
      The velocity of points that are on the surface alone is zero.
    - :obj:`surface` :math:`(N)`, whether they are on the surface.
    - :obj:`distance` :math:`(N, 1)` to the nearest point of the surface, and
      :obj:`normal` :math:`(N, 3)`, the direction away from it; at the
      surface, the mean normal of the quads around a point, outwards.
    - :obj:`face` and :obj:`edge_index`, where the sides of the hexahedra of
      the air are edges, too.
    - :obj:`drag` :math:`(1)`, the drag coefficient.

    Cars are sorted by folder and name. The test cars are the first 189 of
    :obj:`torch.randperm(889)` with the seed 0, as in the `"Universal Physics
    Transformers" <https://arxiv.org/abs/2402.12365>`_ paper, or the same
    share of any other number of cars.

    Args:
        root (str): The folder that holds the cars.
        split (str, optional): :obj:`"train"` or :obj:`"test"`.
            (default: :obj:`"train"`)
        task (str, optional): :obj:`"surface"` or :obj:`"volume"`.
            (default: :obj:`"surface"`)
        preprocessed (bool, optional): Whether to read the preprocessed files.
            (default: if there are no others)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If a file or a folder does not exist.
        ImportError: If meshes are to be read and meshio is not installed.
        ValueError: If there is no such split or task, or a file is broken, of
            other shapes, or holds pickled objects, which are never run.
    """
    def __init__(
        self,
        root: str,
        split: str = 'train',
        task: str = 'surface',
        preprocessed: bool | None = None,
        transform: Callable | None = None,
    ) -> None:
        expect(split in ('train', 'test'), 'split', "'train' or 'test'",
               split)
        expect(task in FILES, 'task', f'one of {list(FILES)}', task)
        super().__init__(os.fspath(root), transform)
        if preprocessed is None:
            raw, made = (osp.isdir(osp.join(self.root, name))
                         for name in (FOLDERS[0], 'preprocessed'))
            preprocessed = task == 'surface' and made and not raw
        expect(not (preprocessed and task == 'volume'), 'preprocessed',
               "False for 'volume', which is not among these files",
               preprocessed)
        self.split = split
        self.task = task
        self.preprocessed = preprocessed
        self.folder = (osp.join(self.root, 'preprocessed') if preprocessed
                       else self.root)
        self.cars = self.find_cars()

    @staticmethod
    def normalization() -> dict[str, tuple[Tensor, Tensor]]:
        r"""Returns the means and the standard deviations, in the units of
        the files, by which the benchmark normalizes attributes of the
        surface: :obj:`pos`, to which its authors come by way of the unit
        cube, and :obj:`y`.
        """
        low, high = torch.tensor(DOMAIN, dtype=torch.double)
        return {'pos': ((low + 0.4063 * (high - low)).float(),
                        (0.1531 * (high - low)).float()),
                'y': (torch.tensor([-36.3099]), torch.tensor([48.5743]))}

    def find_cars(self) -> list[str]:
        r"""Returns the folders of the split, relative to that of all."""
        names = FILES[self.task]
        if self.preprocessed:
            names = (POINTS, PRESSURES)
        cars = [car for folder in FOLDERS for car in list_folders(
            self.folder, folder) if car not in INCOMPLETE]
        expect(len(cars) > 1, 'root', 'a folder of at least two cars',
               self.root)
        chosen = [cars[i] for i in split_indices(len(cars), self.split)]
        for car in chosen:
            for name in names:
                find_file(self.folder, osp.join(car, name), SOURCE)
        return chosen

    def len(self) -> int:
        return len(self.cars)

    def get(self, idx: int) -> Data:
        folder = osp.join(self.folder, self.cars[idx])
        if self.preprocessed:
            pos, pressure = read_preprocessed(folder)
            return Data(pos=pos, y=pressure)
        surface = read_surface(folder)
        if self.task == 'volume':
            return self.read_volume(folder, surface)
        pos, pressure, quads = surface
        return Data(pos=pos, y=pressure, face=split_quads(quads),
                    edge_index=edges_of_cells(quads, QUAD, len(pos))[0])

    def read_volume(self, folder: str,
                    surface: tuple[Tensor, Tensor, Tensor]) -> Data:
        points, cells = read_mesh(folder, VOLUME, 'hexahedron')
        count = len(points)
        velocity = read_values(folder, 'velo.npy', (count, 3), (3 * count, ))
        return Data(**join(surface, points, velocity, cells),
                    drag=read_drag(folder))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'split={self.split!r}, task={self.task!r})')


def list_folders(root: str, name: str) -> list[str]:
    path = osp.join(root, name)
    if not osp.isdir(path):
        raise FileNotFoundError(f"Expected 'root' to hold the folder "
                                f"{name!r} of {SOURCE} (got no {path!r})")
    return [osp.join(name, car) for car in sorted(os.listdir(path))
            if osp.isdir(osp.join(path, car))]


def split_indices(num_cars: int, split: str) -> list[int]:
    r"""Returns the indices of the cars of a split, in ascending order."""
    order = torch.randperm(num_cars,
                           generator=torch.Generator().manual_seed(0))
    num_test = max(round(num_cars * NUM_TEST / NUM_CARS), 1)
    chosen = order[:num_test] if split == 'test' else order[num_test:]
    return sorted(chosen.tolist())
