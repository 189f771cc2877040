from collections.abc import Iterator

import torch
from torch.utils.data import Dataset
from torch_geometric.data import Data

from benchmarks.experiments.data.clouds import RepeatedSampler, mix
from torch_geometric_erwin.datasets import EAGLE


class Windows(Dataset):
    r"""Windows of simulations that begin where random numbers say: those of a
    seed that comes with the number of the simulation, whichever process
    reads it.
    """
    def __init__(self, simulations: EAGLE) -> None:
        self.simulations = simulations

    def __len__(self) -> int:
        return len(self.simulations)

    def __getitem__(self, key: tuple[int, int]) -> Data:
        index, seed = key
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            return self.simulations[index]


class WindowSampler(RepeatedSampler):
    r"""Adds a seed to each number, which depends on that of the sampler, the
    epoch, and how many came before, in whichever process.
    """
    def __iter__(self) -> Iterator[tuple[int, int]]:
        for count, index in enumerate(super().__iter__()):
            place = count * self.num_replicas + self.rank
            yield index, mix(self.seed, self.epoch, place)
