import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data, InMemoryDataset

from torch_geometric_erwin.datasets.fingerprint import fingerprint, tell

SPLITS = ('train', 'val', 'test')


class DrawnDataset(InMemoryDataset):
    r"""A dataset that is drawn at random rather than downloaded. The first
    graphs of a larger one are those of a smaller one, and splits share
    nothing.

    Derived classes set what :meth:`facts` returns and then call this
    constructor. Graphs made with other arguments, or by another class, have
    another folder, and what cannot be told from others has none: see
    :func:`~torch_geometric_erwin.datasets.fingerprint.fingerprint`.

    Args:
        root (str): Where to keep the graphs.
        split (str): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.
        num_graphs (int): Their number.
        seed (int): Another one makes other graphs.
        transform (callable, optional): Applied at every access.
        pre_transform (callable, optional): Applied before graphs are kept.
        pre_filter (callable, optional): Whether to keep a graph.
        force_reload (bool, optional): Whether to make kept graphs again.

    Raises:
        ValueError: If there is no such split, or :obj:`pre_transform` or
            :obj:`pre_filter` cannot be told from others of its kind.
    """
    def __init__(
        self,
        root: str,
        split: str,
        num_graphs: int,
        seed: int,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        expect(split in SPLITS, 'split', f'one of {SPLITS}', split)
        self.split = split
        self.num_graphs = num_graphs
        self.seed = seed
        # Once, and before they run: transforms may change as they do.
        self.key = fingerprint(type(self), self.facts(), seed, tell(
            'pre_transform', pre_transform), tell('pre_filter', pre_filter))
        super().__init__(root, transform, pre_transform, pre_filter,
                         force_reload=force_reload)
        self.load(self.processed_paths[0])

    def facts(self) -> tuple:
        r"""Returns what else decides over the graphs."""
        raise NotImplementedError

    def make(self, i: int) -> Data:
        r"""Makes the :obj:`i`-th graph of the split."""
        raise NotImplementedError

    def generator(self, i: int) -> torch.Generator:
        r"""Returns random numbers for the :obj:`i`-th graph alone."""
        words = [self.seed, SPLITS.index(self.split), i]
        number = np.random.SeedSequence(words).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(number[0] >> np.uint64(1)))

    @property
    def raw_file_names(self) -> list[str]:
        return []

    @property
    def processed_dir(self) -> str:
        return os.path.join(self.root, 'processed', self.key)

    @property
    def processed_file_names(self) -> str:
        return f'{self.split}_{self.num_graphs}.pt'

    def process(self) -> None:
        graphs = [self.make(i) for i in range(self.num_graphs)]
        if self.pre_filter is not None:
            graphs = [data for data in graphs if self.pre_filter(data)]
        if self.pre_transform is not None:
            graphs = [self.pre_transform(data) for data in graphs]
        self.save(graphs, self.processed_paths[0])


def expect(holds: bool, name: str, what: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"Expected '{name}' to be {what} (got {value!r})")


def as_range(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    given = value if isinstance(value, list | tuple) else (value, value)
    expect(len(given) == 2 and all(isinstance(x, int) for x in given) and
           1 <= given[0] <= given[1], name,
           'a positive number or two, the least and the most', value)
    return given[0], given[1]
