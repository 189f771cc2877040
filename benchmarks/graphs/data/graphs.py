from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform

from benchmarks.graphs.data.task import SPLITS, Split, Task


class Graphs(LightningDataModule):
    r"""Graphs to learn from. Derived classes :meth:`load` them.

    Args:
        positions (BaseTransform, optional): Gives positions :obj:`pos` to
            graphs that have none, once, before they are kept:
            :class:`~torch_geometric_erwin.transforms.AddLaplacianPos` for
            instance. (default: :obj:`None`)
        batch_size (int, optional): Number of graphs in a batch.
            (default: :obj:`32`)
        num_workers (int, optional): Number of processes that collate
            batches. (default: :obj:`0`)
        seed (int, optional): Decides over the order of training graphs.
            (default: :obj:`0`)

    Raises:
        ValueError: If an argument is out of range.
    """
    task: Task

    def __init__(
        self,
        positions: BaseTransform | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"Expected 'batch_size' to be positive "
                             f"(got {batch_size})")
        self.positions = positions
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._loaded = False

    def load(self) -> Task:
        r"""Returns the graphs of all splits, with positions."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        self.load()  # one process writes the files that all read

    def setup(self, stage: str | None = None) -> None:
        r"""Loads all graphs.

        Raises:
            ValueError: If a split is empty.
        """
        if self._loaded:
            return
        self.task = self.load()
        for split in SPLITS:
            if len(self.task.graphs[split]) == 0:
                raise ValueError(f"Expected graphs to {split} on (got none)")
        self._loaded = True

    @property
    def dim(self) -> int:
        r"""The number of dimensions of the positions; zero without any."""
        pos = self.task.graphs['train'][0].pos
        return 0 if pos is None else pos.size(1)

    def train_dataloader(self) -> DataLoader:
        # Drawn from anew when training begins anew, whatever ran before.
        generator = torch.Generator().manual_seed(self.seed)
        return self._loader('train', shuffle=True, generator=generator)

    def val_dataloader(self) -> DataLoader:
        return self._loader('val')

    def test_dataloader(self) -> DataLoader:
        return self._loader('test')

    def _loader(self, split: Split, **kwargs: Any) -> DataLoader:
        return DataLoader(self.task.graphs[split], self.batch_size,
                          num_workers=self.num_workers,
                          persistent_workers=self.num_workers > 0,
                          pin_memory=torch.cuda.is_available(), **kwargs)
