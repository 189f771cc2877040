from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch_geometric.data import Data

from benchmarks.experiments.data.clouds import SPLITS
from benchmarks.experiments.data.point_clouds import PointClouds
from torch_geometric_erwin.datasets import MDTrajectory


class MDTrajectoryData(PointClouds):
    r"""Forces, in kJ/(mol nm), from the positions of atoms, in nm, in the
    frames of a :class:`~torch_geometric_erwin.datasets.MDTrajectory`.

    Features are the type of the atom, one-hot, among those of the training
    frames, and its charge. Bonds, where known, are kept as
    :obj:`edge_index`.

    Args:
        root (str, optional): Where to keep the frames.
            (default: :obj:`"runs/data/md"`)
        name (str, optional): A trajectory that comes with MDAnalysisTests.
            (default: :obj:`None`)
        topology (str, optional): Instead, a file of atoms.
            (default: :obj:`None`)
        trajectory (str, optional): And one of frames.
            (default: :obj:`None`)
        train (list[int], optional): Frames to train on, from zero on.
            (default: :obj:`[0]`)
        val (list[int], optional): Frames to validate on.
            (default: :obj:`[1]`)
        test (list[int], optional): Frames to test on. (default: :obj:`[2]`)
        select (str, optional): Which atoms to keep, in the language of
            MDAnalysis. (default: :obj:`"all"`)
        periodic (bool, optional): If set to :obj:`False`, leaves out the
            box. (default: :obj:`True`)
        **kwargs (optional): Arguments of :class:`PointClouds`.

    Raises:
        ValueError: If a frame is chosen twice. When frames are read, which is
            before training: if one has no box, forces or charges, or atoms
            of a type that the training frames lack, or if the dataset says
            so.
        FileNotFoundError: If a file does not exist when frames are read.
    """
    def __init__(
        self,
        root: str = 'runs/data/md',
        name: str | None = None,
        topology: str | None = None,
        trajectory: str | None = None,
        train: Sequence[int] = (0, ),
        val: Sequence[int] = (1, ),
        test: Sequence[int] = (2, ),
        select: str = 'all',
        periodic: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        frames = [*train, *val, *test]
        if len(set(frames)) < len(frames):
            raise ValueError(f"Expected 'train', 'val' and 'test' to share "
                             f"no frame (got {train}, {val} and {test})")
        self.frames = dict(zip(SPLITS, (train, val, test), strict=True))
        require = ['force', 'charge', *(['box'] if periodic else [])]
        self.options: dict[str, Any] = {
            'root': root, 'name': name, 'topology': topology,
            'trajectory': trajectory, 'select': select, 'periodic': periodic,
            'require': require,
        }

    def load(self) -> dict[str, list[Data]]:
        datasets = {
            split: MDTrajectory(frames=list(frames), **self.options)
            for split, frames in self.frames.items()
        }
        known = datasets['train'].atom_types
        return {
            split: to_clouds(dataset, known, split)
            for split, dataset in datasets.items()
        }


def to_clouds(dataset: MDTrajectory, known: list[str],
              split: str) -> list[Data]:
    unknown = sorted(set(dataset.atom_types) - set(known))
    if unknown:
        raise ValueError(f"Expected the atoms of '{split}' to be of the "
                         f"types of those of 'train', {known} "
                         f"(got {unknown}, too)")
    index = torch.tensor([known.index(name) for name in dataset.atom_types])
    return [to_cloud(data, index, len(known)) for data in dataset]


def to_cloud(data: Data, index: torch.Tensor, num_types: int) -> Data:
    kind = F.one_hot(index[data.atom_type], num_types)
    x = torch.cat([kind, data.charge.unsqueeze(1)], dim=1)
    kept = {key: data[key] for key in ('box', 'edge_index') if key in data}
    return Data(x=x, pos=data.pos, y=data.force, **kept)
