from collections.abc import Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from benchmarks.experiments.data.clouds import SPLITS, Clouds, mix
from benchmarks.experiments.data.field_clouds import Units, measure_units
from benchmarks.experiments.data.point_clouds import length_unit
from benchmarks.experiments.data.windows import Windows, WindowSampler
from torch_geometric_erwin.datasets import EAGLE

NUM_MEASURED = 16  # simulations to measure units on, and
NUM_STEPS = 4  # steps of each


class UnsteadyFlows(Clouds):
    r"""Windows of consecutive steps of simulations, as
    :class:`~torch_geometric_erwin.datasets.EAGLE` describes them, in its
    units. Training windows begin at random, at steps that :obj:`seed`, the
    epoch, and the number of the window decide over. Derived classes
    :meth:`open` simulations.

    :obj:`mean` and :obj:`scale` of the four fields, and those of positions,
    :obj:`pos_mean` and :obj:`pos_scale`, are what the benchmark fixes, or
    else measured, as is the unit of length, the spacing of the points: on
    four steps of up to 16 training simulations.

    Args:
        window (int, optional): Number of steps of training windows, the
            first of which is given. (default: :obj:`6`)
        val_window (int, optional): Number of steps of validation windows.
            (default: :obj:`2`)
        horizon (int, optional): Number of steps of test windows.
            (default: :obj:`400`)
        start (int, optional): The step that validation and test windows
            begin with. (default: :obj:`100`)
        **kwargs (optional): Arguments of :class:`Clouds`.

    Raises:
        ValueError: If windows leave nothing to predict; on setup, if a
            simulation is shorter than its window.
    """
    sampler = WindowSampler

    def __init__(self, window: int = 6, val_window: int = 2,
                 horizon: int = 400, start: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        windows = {'window': window, 'val_window': val_window,
                   'horizon': horizon}
        for name, value in windows.items():
            if value < 2:
                raise ValueError(f"Expected '{name}' to be at least 2, what "
                                 f"is given and what follows (got {value})")
        self.windows = dict(zip(SPLITS, windows.values(), strict=True))
        self.start = start

    def open(self, split: str, window: int, start: int | str) -> EAGLE:
        r"""Returns windows of the simulations of a split."""
        raise NotImplementedError

    def known_units(self) -> Units:
        r"""Returns the means and the standard deviations that a benchmark
        fixes for :obj:`pos` and :obj:`y`. Others are measured.
        """
        return {}

    def prepare_data(self) -> None:
        for split in SPLITS:  # one process writes the files that all read
            self._open_windows(split)

    def setup(self, stage: str | None = None) -> None:
        r"""Opens all simulations and reads a window of each split, so that
        errors come before training.
        """
        if self.clouds:
            return
        windows = {split: self._open_windows(split) for split in SPLITS}
        for data in windows.values():
            data[0]
        self._set_units(self.measured())
        self.clouds = {**windows, 'train': Windows(windows['train'])}

    def _open_windows(self, split: str) -> EAGLE:
        start = 'random' if split == 'train' else self.start
        return self.open(split, self.windows[split], start)

    def measured(self) -> list[Data]:
        r"""Returns single steps of training simulations, the same ones each
        time.
        """
        steps = Windows(self.open('train', 1, 'random'))
        return [steps[index, mix(index, draw)] for index in spread(len(steps))
                for draw in range(NUM_STEPS)]

    def _set_units(self, samples: Sequence[Data]) -> None:
        flat = [Data(pos=data.pos, y=data.y[:, 0]) for data in samples]
        units = {key: measure_units(flat, key) for key in ('pos', 'y')}
        units.update(self.known_units())
        self.mean, self.scale = units['y']
        self.pos_mean, self.pos_scale = units['pos']
        self.length = length_unit(flat)


def spread(number: int) -> list[int]:
    r"""Returns numbers from zero on, at most 16, spread over all."""
    return torch.linspace(0, number - 1, min(number, NUM_MEASURED)).long(
    ).tolist()
