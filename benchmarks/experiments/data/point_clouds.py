import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DistributedSampler
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.typing import OptTensor

from benchmarks.experiments.data.augment import augment
from benchmarks.experiments.data.checks import check_clouds

SPLITS = ('train', 'val', 'test')


class PointClouds(LightningDataModule):
    r"""Clouds with features :obj:`x` :math:`(N, F)`, positions :obj:`pos`
    and one vector to learn for each point, :obj:`y`, both :math:`(N, D)`, and
    edges :obj:`box` :math:`(1, D)` if they are periodic. Derived classes
    :meth:`load` them.

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
            over augmentation. (default: :obj:`0`)
        augment (bool, optional): If set to :obj:`True`, turns training
            clouds at random, by right angles if they are periodic, mirrors
            them, and shifts periodic ones. (default: :obj:`True`)
        repeats (int, optional): How often an epoch sees each training cloud.
            (default: :obj:`1`)
    """
    is_vector = True  # what there is to learn turns with the cloud

    def __init__(
        self,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        augment: bool = True,
        repeats: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (('batch_size', batch_size), ('repeats', repeats)):
            if value < 1:
                raise ValueError(f"Expected '{name}' to be positive "
                                 f"(got {value})")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.augment = augment
        self.repeats = repeats
        self.clouds: dict[str, list[Data]] = {}

    def load(self) -> dict[str, list[Data]]:
        r"""Returns the clouds of :obj:`"train"`, :obj:`"val"` and
        :obj:`"test"`.
        """
        raise NotImplementedError

    def prepare_data(self) -> None:
        self.load()  # one process writes the files that all read

    def setup(self, stage: str | None = None) -> None:
        r"""Loads and checks all clouds, so that errors come before training.

        Raises:
            ValueError: If clouds cannot be learned from.
        """
        if self.clouds:
            return
        clouds = self.load()
        like = clouds['train'][0]
        for split in SPLITS:
            check_clouds(clouds[split], split, like, self.num_targets(like))
        self.length = length_unit(clouds['train'])
        self.mean, self.scale = self.target_units(clouds['train'])
        self.clouds = clouds

    def num_targets(self, like: Data) -> int:
        r"""Returns how many numbers there are to learn for each point."""
        return like.pos.size(1)

    def target_units(self, clouds: Sequence[Data]) -> tuple[Any, Any]:
        r"""Returns what networks' output is shifted and multiplied by."""
        return 0., target_scale(clouds)

    @property
    def num_features(self) -> int:
        return self.clouds['train'][0].x.size(1)

    @property
    def dim(self) -> int:
        return self.clouds['train'][0].pos.size(1)

    @property
    def out_channels(self) -> int:
        return self.num_targets(self.clouds['train'][0])

    def train_dataloader(self) -> DataLoader:
        clouds = self.clouds['train'] * self.repeats
        ranks, rank = 1, 0
        if self.trainer is not None:
            ranks, rank = self.trainer.world_size, self.trainer.global_rank
        # Lightning tells this sampler about epochs.
        sampler: DistributedSampler = DistributedSampler(
            clouds, ranks, rank, seed=self.seed)  # type: ignore[arg-type]
        return self._loader(clouds, sampler)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.clouds['val'])

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.clouds['test'])

    def _loader(self, clouds: list[Data],
                sampler: DistributedSampler | None = None) -> DataLoader:
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
        return self.change(batch) if self.augment else batch

    def change(self, batch: Batch) -> Batch:
        r"""Changes training clouds, and what there is to learn with them."""
        return augment(batch)


def mix(*numbers: int) -> int:
    r"""Makes one seed of several numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def length_unit(clouds: Sequence[Data]) -> float:
    r"""Returns the mean spacing of points, that is, the edge of the cube that
    one of them has for itself.
    """
    volume = sum(edges(data).double().prod().item() for data in clouds)
    number, dim = sum(len(data.pos) for data in clouds), clouds[0].pos.size(1)
    if volume <= 0:
        raise ValueError("Expected the training clouds to extend in all "
                         "dimensions (got flat ones)")
    return (volume / number)**(1 / dim)


def edges(data: Data) -> OptTensor:
    r"""Returns the edges of the box, or of the smallest one that would do."""
    if 'box' in data:
        return data.box
    return data.pos.amax(dim=0) - data.pos.amin(dim=0)


def target_scale(clouds: Sequence[Data]) -> float:
    r"""Returns the root mean square of the targets' components."""
    square = sum(data.y.double().square().sum().item() for data in clouds)
    if square == 0:
        raise ValueError("Expected the training clouds to have targets other "
                         "than zero (got none)")
    return math.sqrt(square / sum(data.y.numel() for data in clouds))
