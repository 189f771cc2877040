import os
import os.path as osp
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from torch_geometric_erwin.datasets.array_files import (
    check_corners,
    check_shape,
    find_file,
    is_count,
    open_npy,
    open_npz,
)
from torch_geometric_erwin.datasets.drawn import expect
from torch_geometric_erwin.datasets.meshes import TRIANGLE, edges_of_cells

SOURCE = "EAGLE (https://eagle-dataset.github.io)"
FILES = {'train': 'train', 'val': 'valid', 'test': 'test'}
WINDOWS = {'train': 6, 'val': 2, 'test': 400}
START = 100  # of validation and test
NUM_TYPES = 9
FIELDS = ('VX', 'VY', 'PS', 'PG')


class EAGLE(Dataset):
    r"""Unsteady flow in two dimensions, stirred by a drone, on meshes that
    change in time, from the `"EAGLE: Large-scale Learning of Turbulent Fluid
    Dynamics with Mesh Transformers" <https://arxiv.org/abs/2302.10803>`_
    paper: one :class:`~torch_geometric.data.Data` per simulation, of a window
    of consecutive steps.

    The dataset has to be downloaded from `its page
    <https://eagle-dataset.github.io>`_. :obj:`root` holds
    :obj:`Splits/{train,valid,test}.txt`, which list folders below
    :obj:`root`, one a line, and each folder holds

    - :obj:`sim.npz`: :obj:`pointcloud` :math:`(T, N, 2)`, :obj:`VX`,
      :obj:`VY`, :obj:`PS`, :obj:`PG`, each :math:`(T, N)`, and :obj:`mask`
      :math:`(T, N)` or :math:`(T, N, 1)`;
    - :obj:`triangles.npy`: :math:`(T, M, 3)`, indices of points.

    No more than a window is read at an access, where the members of
    :obj:`sim.npz` are stored as they are (``numpy.savez``). Members that
    are compressed (``numpy.savez_compressed``) have to be decompressed
    whole each time. A window of :math:`S` steps has

    - :obj:`pos` :math:`(N, 2)`, the points at its first step, and
      :obj:`pos_window` :math:`(N, S, 2)`, at all steps.
    - :obj:`y` :math:`(N, S, 4)`: the two components of the velocity, and the
      pressures PS and PG. Nothing is normalized: positions, velocities and
      pressures keep the units of the files, those of the solver.
    - :obj:`node_type` :math:`(N, S)`: 0 in the flow, 2 disabled, 4 inlet, 5
      outlet, 6 wall.
    - :obj:`edge_index` :math:`(2, E)`, the sides of the triangles of all
      steps, in both directions, and :obj:`edge_step` :math:`(E)`, the step
      of the window that each is of, in ascending order.
    - :obj:`face` :math:`(3, F)`, the triangles of all steps, and
      :obj:`face_step` :math:`(F)`.
    - :obj:`start` :math:`(1)`, the step that the window begins with.

    In the paper, networks predict the difference between states that follow
    each other; nodes at inlets and walls, and disabled ones, are set to the
    truth at each step.

    Args:
        root (str): The folder that holds the simulations.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or
            :obj:`"test"`. (default: :obj:`"train"`)
        window (int, optional): Number of steps. (default: 6 for training, 2
            for validation, 400 for test)
        start (int or str, optional): The step to begin with, or
            :obj:`"random"`: another one at each access, drawn by PyTorch's
            generator. (default: :obj:`"random"` for training, else 100)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If a file or a folder does not exist.
        ValueError: If an argument makes no window, a simulation is shorter
            than it, or a file is broken, of other shapes, or holds pickled
            objects, which are never run.
    """
    def __init__(
        self,
        root: str,
        split: str = 'train',
        window: int | None = None,
        start: int | str | None = None,
        transform: Callable | None = None,
    ) -> None:
        expect(split in FILES, 'split', f'one of {list(FILES)}', split)
        window = WINDOWS[split] if window is None else window
        if start is None:
            start = 'random' if split == 'train' else START
        expect(is_count(window) and window > 0, 'window', 'at least 1',
               window)
        expect(start == 'random' or is_count(start), 'start',
               "a step or 'random'", start)
        self.split = split
        self.window = window
        self.start = start
        super().__init__(os.fspath(root), transform)
        self.simulations = self.find_simulations()

    @staticmethod
    def normalization() -> dict[str, tuple[Tensor, Tensor]]:
        r"""Returns the means and the standard deviations, in the units of
        the files, by which the authors normalize each attribute: of
        :obj:`y`, its four fields.
        """
        return {'y': (torch.tensor([-0.0015, 0.2211, -0.8322, 4.6050]),
                      torch.tensor([1.7970, 2.0258, 7.4013, 9.7232]))}

    def find_simulations(self) -> list[str]:
        r"""Returns the folders that the split lists."""
        path = find_file(self.root, f'Splits/{FILES[self.split]}.txt', SOURCE)
        with open(path) as file:
            names = [line.strip() for line in file if line.strip()]
        if not names:
            raise ValueError(f"Expected {path!r} to list folders (got none)")
        for name in names:
            for file_name in ('sim.npz', 'triangles.npy'):
                find_file(self.root, osp.join(name, file_name), SOURCE)
        return names

    def len(self) -> int:
        return len(self.simulations)

    def get(self, idx: int) -> Data:
        folder = osp.join(self.root, self.simulations[idx])
        path = osp.join(folder, 'sim.npz')
        arrays = open_npz(path, ('pointcloud', 'mask', *FIELDS))
        steps, points = check_arrays(path, arrays)
        start = self.find_start(path, steps)
        chosen = slice(start, start + self.window)
        pos = to_tensor(arrays['pointcloud'][chosen]).float()
        state = torch.stack([to_tensor(arrays[name][chosen]).float()
                             for name in FIELDS], dim=-1)
        return Data(
            pos=pos[0].clone(),
            pos_window=pos.transpose(0, 1).contiguous(),
            y=state.transpose(0, 1).contiguous(),
            node_type=read_types(path, arrays['mask'][chosen], points),
            start=torch.tensor([start]),
            **read_mesh(folder, chosen, steps, points),
        )

    def find_start(self, path: str, steps: int) -> int:
        last = steps - self.window
        if self.start == 'random' and last >= 0:
            return int(torch.randint(last + 1, (1,)))
        if not isinstance(self.start, int) or self.start > last:
            raise ValueError(
                f"Expected {path!r} to have {self.window} steps from 'start' "
                f"on (got {steps} in all, and 'start' is {self.start!r})")
        return self.start

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'split={self.split!r}, window={self.window})')


def to_tensor(array: np.ndarray) -> Tensor:
    # Files may have bytes in another order, which PyTorch does not know.
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder('=')))


def check_arrays(path: str, arrays: dict[str, np.ndarray]) -> tuple[int, int]:
    r"""Returns the numbers of steps and of points."""
    check_shape(path, arrays['pointcloud'], (None, None, 2), "'pointcloud'")
    steps, points = arrays['pointcloud'].shape[:2]
    if points == 0:
        raise ValueError(f"Expected {path!r} to have points (got none)")
    for name in FIELDS:
        check_shape(path, arrays[name], (steps, points), f'{name!r}')
    extra = (1,) if arrays['mask'].ndim == 3 else ()
    check_shape(path, arrays['mask'], (steps, points, *extra), "'mask'")
    return steps, points


def read_types(path: str, mask: np.ndarray, num_points: int) -> Tensor:
    mask = mask.reshape(-1, num_points)
    kind = to_tensor(mask).long().t().contiguous()
    if (mask != kind.numpy().T).any() or kind.min() < 0 or (
            kind.max() >= NUM_TYPES):
        raise ValueError(f"Expected 'mask' of {path!r} to hold types from 0 "
                         f"to {NUM_TYPES - 1} (got values from {mask.min()} "
                         f"to {mask.max()})")
    return kind


def read_mesh(folder: str, chosen: slice, steps: int,
              num_points: int) -> dict[str, Tensor]:
    r"""Returns the triangles and edges of some steps."""
    path = osp.join(folder, 'triangles.npy')
    triangles = open_npy(path)
    check_shape(path, triangles, (steps, None, 3))
    triangles = triangles[chosen]
    check_corners(path, triangles, num_points)
    faces = to_tensor(triangles).long()
    step = torch.arange(len(faces)).repeat_interleave(faces.size(1))
    faces = faces.flatten(0, 1)
    edge_index, edge_step = edges_of_cells(faces, TRIANGLE, num_points, step)
    return dict(face=faces.t().contiguous(), face_step=step,
                edge_index=edge_index, edge_step=edge_step)
