import json
import os
import os.path as osp
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from torch_geometric_erwin.datasets.fingerprint import fingerprint, tell
from torch_geometric_erwin.datasets.md_reader import (
    find_frames,
    import_optional,
    keep_common_attributes,
    open_universe,
    read_atoms,
    read_frame,
    select_atoms,
    shorten_boxes,
)

# The names of the files in `MDAnalysisTests.datafiles`.
SOURCES = {'cobrotoxin': ('TPR_xvf', 'TRR_xvf'), 'adk': ('TPR', 'TRR')}
ATTRIBUTES = ('box', 'charge', 'edge_index', 'force', 'mass', 'velocity')


class MDTrajectory(InMemoryDataset):
    r"""The frames of a molecular-dynamics trajectory, read with `MDAnalysis
    <https://www.mdanalysis.org>`_, one
    :class:`~torch_geometric.data.Data` per frame.

    The units are those of GROMACS, whatever the format of the files:
    nanometers, picoseconds, elementary charges, atomic mass units (g/mol),
    nm/ps and kJ/(mol nm). Boltzmann's constant is 0.0083144626 kJ/(mol K)
    in them. A frame of :math:`N` atoms and :math:`E` bonds holds

    - :obj:`pos` :math:`(N, 3)`, as stored in the file: wrapped into the cell
      or not. Ball trees wrap by themselves when they are given the box.
    - :obj:`box`, the periodic cell, which may differ from frame to frame:
      its edges, :math:`(1, 3)`, where all cells of the chosen frames have
      right angles, else the lattice, :math:`(1, 3, 3)`, whose rows are the
      vectors that span the cell. The first is along the x axis, and the
      second in the plane of x and y.
    - :obj:`atom_type` :math:`(N)`, indices into :obj:`dataset.atom_types`,
      the sorted names of the elements of the chosen atoms. An atom without
      an element, such as the virtual site of four-site water, goes by the
      name of its type.
    - :obj:`charge` :math:`(N)` and :obj:`mass` :math:`(N)`. Virtual sites
      have no mass.
    - :obj:`edge_index` :math:`(2, 2E)`, the bonds in both directions.
    - :obj:`velocity` :math:`(N, 3)` and :obj:`force` :math:`(N, 3)`.
    - :obj:`time` :math:`(1)`.

    Charges, bonds, box, velocities, forces and time are left out where the
    files do not have them for every frame. Masses and types that the
    topology lacks are guessed by MDAnalysis from the names of the atoms. All
    frames are held in memory.

    Two trajectories come with the package :obj:`MDAnalysisTests`:

    - :obj:`"cobrotoxin"`: a protein in four-site water, 19,385 atoms in a
      cubic cell, 3 frames with velocities and forces.
    - :obj:`"adk"`: adenylate kinase in four-site water, 47,681 atoms, 10
      frames with velocities and without forces. Its cell is a rhombic
      dodecahedron, so :obj:`box` holds lattices.

    The processed frames are kept in a folder of their own for each choice of
    files and of the options that change them: :obj:`pre_transform` and
    :obj:`pre_filter` are told apart by what they consist of, down to the byte
    code of functions and the contents of closures.

    Args:
        root (str): The folder to keep the processed frames in.
        name (str, optional): :obj:`"cobrotoxin"` or :obj:`"adk"`.
            (default: :obj:`None`)
        topology (str, optional): Instead of :obj:`name`, a file that holds
            the atoms, such as :obj:`.tpr`, :obj:`.psf` or :obj:`.pdb`.
            (default: :obj:`None`)
        trajectory (str, optional): The file that holds the frames, such as
            :obj:`.trr`, :obj:`.xtc` or :obj:`.dcd`. (default: :obj:`None`)
        frames (list[int] or slice, optional): The frames to read; negative
            ones count from the end. (default: all)
        select (str, optional): The atoms to keep, in the selection language
            of MDAnalysis, chosen once in the first frame that is read. Bonds
            to other atoms are dropped. (default: :obj:`"all"`)
        periodic (bool, optional): If set to :obj:`False`, leaves out the
            box. (default: :obj:`True`)
        require (list[str], optional): What every frame has to have, of
            :obj:`"box"`, :obj:`"charge"`, :obj:`"edge_index"`,
            :obj:`"force"`, :obj:`"mass"` and :obj:`"velocity"`.
            (default: :obj:`()`)
        transform (callable, optional): A transform for every access.
            (default: :obj:`None`)
        pre_transform (callable, optional): A transform before saving.
            (default: :obj:`None`)
        pre_filter (callable, optional): Which frames to save.
            (default: :obj:`None`)
        force_reload (bool, optional): Whether to read the files again.
            (default: :obj:`False`)

    Raises:
        ImportError: If MDAnalysis or, for :obj:`name`, MDAnalysisTests is
            not installed.
        FileNotFoundError: If a file does not exist.
        ValueError: If the files cannot be read or disagree about the number
            of atoms, the frames or atoms chosen do not exist, something
            required is missing, the cell has no volume, or
            :obj:`pre_transform` or :obj:`pre_filter` cannot be told from
            others of its kind.
    """
    def __init__(
        self,
        root: str,
        name: str | None = None,
        topology: str | os.PathLike | None = None,
        trajectory: str | os.PathLike | None = None,
        frames: Sequence[int] | slice | None = None,
        select: str = 'all',
        periodic: bool = True,
        require: Sequence[str] = (),
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        self.files = find_files(name, topology, trajectory)
        self.frames = check_frames(frames)
        self.select = select
        self.periodic = periodic
        self.require = check_require(require)
        self.key = '-'.join([name or osp.basename(self.files[1]), fingerprint(
            type(self), [identify(path) for path in self.files], self.frames,
            select, periodic, tell('pre_transform', pre_transform),
            tell('pre_filter', pre_filter))])
        super().__init__(root, transform, pre_transform, pre_filter,
                         force_reload=force_reload)
        with open(self.processed_paths[0]) as file:
            meta = json.load(file)
        self.atom_types: list[str] = meta['atom_types']
        check_attributes(meta['attributes'], self.require, self.files[1])
        self.load(self.processed_paths[1])

    @property
    def processed_dir(self) -> str:
        return osp.join(self.root, 'processed', self.key)

    @property
    def processed_file_names(self) -> list[str]:
        return ['meta.json', 'data.pt']

    def process(self) -> None:
        universe = open_universe(*self.files)
        frames = find_frames(self.frames, len(universe.trajectory))
        universe.trajectory[frames[0]]
        atoms = select_atoms(universe, self.select)
        shared, atom_types = read_atoms(atoms)
        data_list = [self.read(atoms, frame, shared) for frame in frames]
        attributes = keep_common_attributes(data_list)
        shorten_boxes(data_list)
        self.save(self.prepare(data_list), self.processed_paths[1])
        with open(self.processed_paths[0], 'w') as file:
            json.dump({'atom_types': atom_types,
                       'attributes': attributes}, file)

    def read(self, atoms: Any, frame: int, shared: dict[str, Tensor]) -> Data:
        step = atoms.universe.trajectory[frame]
        if not step.has_positions:
            raise ValueError(f"Expected every frame of {self.files[1]!r} to "
                             f"have positions (got none in frame {frame})")
        data = Data(**read_frame(step, atoms.indices, self.periodic), **shared)
        check_attributes(data.keys(), self.require, self.files[1])
        return data

    def prepare(self, data_list: list[Data]) -> list[Data]:
        if self.pre_filter is not None:
            data_list = [data for data in data_list if self.pre_filter(data)]
        if not data_list:
            raise ValueError("Expected 'pre_filter' to keep at least one "
                             "frame (got none)")
        if self.pre_transform is not None:
            data_list = [self.pre_transform(data) for data in data_list]
        return data_list


def find_files(
    name: str | None,
    topology: str | os.PathLike | None,
    trajectory: str | os.PathLike | None,
) -> tuple[str, str]:
    r"""Returns the paths of the topology and of the trajectory."""
    if name is not None and (topology is not None or trajectory is not None):
        raise ValueError(f"Expected either 'name' or 'topology' and "
                         f"'trajectory' (got both, {name!r}, {topology!r} "
                         f"and {trajectory!r})")
    if name is not None:
        if name not in SOURCES:
            raise ValueError(f"Expected 'name' to be one of {list(SOURCES)} "
                             f"(got {name!r})")
        files = import_optional('MDAnalysisTests.datafiles')
        topology, trajectory = (getattr(files, x) for x in SOURCES[name])
    return (check_file(topology, 'topology'),
            check_file(trajectory, 'trajectory'))


def check_file(path: str | os.PathLike | None, name: str) -> str:
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"Expected '{name}' to be a path, where 'name' is "
                         f"not given (got {path!r})")
    path = osp.abspath(osp.expanduser(os.fspath(path)))
    if not osp.isfile(path):
        raise FileNotFoundError(f"Expected '{name}' to be an existing file "
                                f"(got {path!r})")
    return path


def check_frames(frames: Sequence[int] | slice | None) -> list[int] | slice:
    if frames is None or isinstance(frames, slice):
        return frames or slice(None)
    values = np.asarray(frames)
    if values.ndim != 1 or (values.size and values.dtype.kind not in 'iu'):
        raise ValueError(f"Expected 'frames' to be a slice or a list of "
                         f"integers (got {frames!r})")
    return values.tolist()


def check_require(require: Sequence[str]) -> tuple[str, ...]:
    if isinstance(require, str) or set(require) - set(ATTRIBUTES):
        raise ValueError(f"Expected 'require' to be a list of some of "
                         f"{list(ATTRIBUTES)} (got {require!r})")
    return tuple(require)


def identify(path: str) -> tuple[str, int, int]:
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def check_attributes(
    attributes: Sequence[str],
    require: Sequence[str],
    trajectory: str,
) -> None:
    missing = [name for name in require if name not in attributes]
    if missing:
        raise ValueError(f"Expected every frame of {trajectory!r}, or its "
                         f"topology, to have what 'require' names, "
                         f"{list(require)} (got no {', '.join(missing)})")
