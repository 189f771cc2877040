r"""OGB's dataset classes, with what they lack."""

import os
import os.path as osp
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch_geometric.data import Data

from benchmarks.graphs.data.conformers import Structure
from torch_geometric_erwin.datasets.ogb_guard import quiet_import

with quiet_import():
    from ogb.graphproppred import PygGraphPropPredDataset
    from ogb.lsc import PygPCQM4Mv2Dataset
    from ogb.nodeproppred import PygNodePropPredDataset

Structures = Callable[[], Iterable[Structure] | None]
MISC = 119  # what OGB's first feature of atoms, plus one, is for others


class Kept:
    r"""Processed data in a folder for each :obj:`key`, written there when
    complete, and graphs with positions.

    Args:
        key (str): What is processed in another way needs another key.
        structures (callable): Returns the
            :class:`~benchmarks.graphs.data.conformers.Structure` of each
            graph, in their order, or :obj:`None`. They become :obj:`pos`
            before :obj:`pre_transform` sees the graphs. Only called if that
            has not been done before.
    """
    root: str
    processed_paths: list[str]
    pre_transform: Callable[[Data], Data]

    def __init__(self, *args: Any, key: str, structures: Structures,
                 **kwargs: Any) -> None:
        self.key = key
        self.structures = structures
        self.unfinished = False
        super().__init__(*args, **kwargs)

    @property
    def processed_dir(self) -> str:
        return osp.join(self.root, 'processed', self.key)

    @property
    def processed_file_names(self) -> str:
        return 'part.pt' if self.unfinished else 'data.pt'

    def download(self) -> None:
        raise FileNotFoundError(f"Expected the raw files of a dataset in "
                                f"'{self.root}' (got none)")

    def process(self) -> None:
        finish, structures = self.pre_transform, self.structures()
        placed = Placed(structures or (), finish)
        self.unfinished = True
        try:
            if structures is not None:
                self.pre_transform = placed
            with warnings.catch_warnings():
                # OGB only reads what pandas does not want to be written.
                warnings.filterwarnings('ignore', '.*array is not writable')
                super().process()  # type: ignore[misc]
            placed.end()
            part = self.processed_paths[0]
        finally:
            self.unfinished, self.pre_transform = False, finish
        os.replace(part, self.processed_paths[0])


class GraphProperties(Kept, PygGraphPropPredDataset):
    pass


class NodeProperties(Kept, PygNodePropPredDataset):
    pass


class PCQM4Mv2(Kept, PygPCQM4Mv2Dataset):
    pass


class Placed:
    r"""Gives each graph that it is called with its positions.

    Raises:
        ValueError: If they are not those of its atoms.
    """
    def __init__(self, structures: Iterable[Structure],
                 finish: Callable[[Data], Data]) -> None:
        self.structures: Iterator[Structure] = iter(structures)
        self.finish = finish
        self.count = 0

    def __call__(self, data: Data) -> Data:
        structure = next(self.structures, None)
        if structure is None:
            raise ValueError(f"Expected a structure for each molecule (got "
                             f"{self.count})")
        check_atoms(data.x, structure.number, self.count)
        data.pos = structure.pos
        self.count += 1
        return self.finish(data)

    def end(self) -> None:
        if next(self.structures, None) is not None:
            raise ValueError(f"Expected structures for {self.count} "
                             f"molecules (got more)")


def check_atoms(x: torch.Tensor, number: torch.Tensor, index: int) -> None:
    known = torch.where((number > 0) & (number < MISC), number, MISC)
    if not torch.equal(x[:, 0] + 1, known):
        raise ValueError(f"Expected the structure of molecule {index} to "
                         f"have the atomic numbers of its graph, "
                         f"{(x[:, 0] + 1).tolist()} (got {known.tolist()})")
