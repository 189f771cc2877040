from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DistributedSampler
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

SPLITS = ('train', 'val', 'test')


class RepeatedSampler(DistributedSampler):
    r"""Goes through clouds a number of times, in an order that depends on
    :obj:`seed` and the epoch alone.
    """
    def __init__(self, clouds: Sequence, repeats: int, ranks: int, rank: int,
                 seed: int) -> None:
        super().__init__(range(repeats * len(clouds)),  # type: ignore
                         ranks, rank, seed=seed)
        self.num_clouds = len(clouds)

    def __iter__(self) -> Iterator[Any]:
        for index in super().__iter__():
            yield index % self.num_clouds


class Clouds(LightningDataModule):
    r"""Batches of clouds. On :meth:`setup`, derived classes fill
    :attr:`clouds`, sequences of :class:`~torch_geometric.data.Data` for
    :obj:`"train"`, :obj:`"val"` and :obj:`"test"`.

    The order of the clouds depends on :obj:`seed` and the epoch alone, and
    every training step begins with the random numbers that :obj:`seed`, the
    epoch, the number of the batch and of the process give. A run that is
    resumed after an epoch thus goes on as if it had never stopped.

    With several processes, some clouds count twice in validation and testing
    unless the processes divide their number.

    Args:
        batch_size (int, optional): Number of clouds in a batch.
            (default: :obj:`1`)
        num_workers (int, optional): Number of processes that collate
            batches. (default: :obj:`0`)
        seed (int, optional): Decides over the order of training clouds and
            over what else is random in training. (default: :obj:`0`)
        repeats (int, optional): How often an epoch sees each training cloud.
            (default: :obj:`1`)

    Raises:
        ValueError: If a number is not positive.
    """
    sampler: type[RepeatedSampler] = RepeatedSampler

    def __init__(self, batch_size: int = 1, num_workers: int = 0,
                 seed: int = 0, repeats: int = 1) -> None:
        super().__init__()
        for name, value in (('batch_size', batch_size), ('repeats', repeats)):
            if value < 1:
                raise ValueError(f"Expected '{name}' to be positive "
                                 f"(got {value})")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.repeats = repeats
        self.clouds: dict[str, Any] = {}

    def train_dataloader(self) -> DataLoader:
        ranks, rank = 1, 0
        if self.trainer is not None:
            ranks, rank = self.trainer.world_size, self.trainer.global_rank
        clouds = self.clouds['train']
        # Lightning tells samplers of this kind about epochs.
        return self._loader(clouds, self.sampler(clouds, self.repeats, ranks,
                                                 rank, self.seed))

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.clouds['val'])

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.clouds['test'])

    def _loader(self, clouds: Any,
                sampler: RepeatedSampler | None = None) -> DataLoader:
        return DataLoader(clouds, self.batch_size, sampler=sampler,
                          num_workers=self.num_workers,
                          persistent_workers=self.num_workers > 0,
                          pin_memory=torch.cuda.is_available())

    def on_after_batch_transfer(self, batch: Batch,
                                dataloader_idx: int) -> Batch:
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return batch
        torch.manual_seed(mix(self.seed, trainer.current_epoch,
                              trainer.fit_loop.batch_idx + 1,
                              trainer.global_rank))
        return self.draw(batch)

    def draw(self, batch: Batch) -> Batch:
        r"""Changes a training batch at random."""
        return batch


def mix(*numbers: int) -> int:
    r"""Makes one seed of several numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
