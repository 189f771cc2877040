import math
import time
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.experiments.schedule import warmup_cosine


class TimeBudget(Callback):
    r"""Trains for a given time, to compare networks that got the same.

    The learning rate follows the part of the time that is used: it rises for
    the module's :obj:`warmup` and falls to zero along a cosine. The schedule
    of steps and :obj:`max_epochs` are without effect. Loading data counts;
    set-up, validation and checkpoints do not. The time used is kept in
    checkpoints.

    Args:
        minutes (float): The time to train for.
        clock (str, optional): :obj:`"wall"`, or :obj:`"cpu"` for the time
            that processors spend on all threads of the process. Networks that
            are trained on the CPU, each with as many threads, then get the
            same even where they share processors.
            (default: :obj:`"wall"`)

    Raises:
        ValueError: If :obj:`minutes` is not a positive time, or there is no
            such clock.
    """
    def __init__(self, minutes: float,
                 clock: Literal['wall', 'cpu'] = 'wall') -> None:
        if not 0 < minutes < math.inf:
            raise ValueError(f"Expected 'minutes' to be a positive time "
                             f"(got {minutes})")
        if clock not in ('wall', 'cpu'):
            raise ValueError(f"Expected 'clock' to be 'wall' or 'cpu' (got "
                             f"{clock!r})")
        self.minutes = minutes
        self.clock = clock
        self.seconds = 0.
        self._start: float | None = None

    @property
    def progress(self) -> float:
        r"""The part of the time that is used."""
        return self.seconds / (60. * self.minutes)

    def setup(self, trainer: Trainer, pl_module: LightningModule,
              stage: str) -> None:
        trainer.fit_loop.max_epochs = -1

    def on_train_start(self, trainer: Trainer,
                       pl_module: LightningModule) -> None:
        self._stop_in_time(trainer)  # resumed with nothing left

    def on_train_epoch_start(self, trainer: Trainer,
                             pl_module: LightningModule) -> None:
        self._start = self._now()

    def on_train_batch_start(self, trainer: Trainer,
                             pl_module: LightningModule, batch: Any,
                             batch_idx: int) -> None:
        factor = warmup_cosine(self.progress, pl_module.hparams['warmup'])
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group['lr'] = factor * optimizer.defaults['lr']

    def on_train_batch_end(self, trainer: Trainer,
                           pl_module: LightningModule, outputs: Any,
                           batch: Any, batch_idx: int) -> None:
        self._count()
        # All processes go by one clock.
        self.seconds = trainer.strategy.broadcast(self.seconds)
        pl_module.log('train/progress', self.progress, batch_size=1)
        self._stop_in_time(trainer)

    def on_validation_start(self, trainer: Trainer,
                            pl_module: LightningModule) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._count()
        self._start = None

    def on_validation_end(self, trainer: Trainer,
                          pl_module: LightningModule) -> None:
        self._start = self._now()

    def _stop_in_time(self, trainer: Trainer) -> None:
        trainer.should_stop = trainer.should_stop or self.progress >= 1.

    def _now(self) -> float:
        return (time.perf_counter() if self.clock == 'wall' else
                time.process_time())

    def _count(self) -> None:
        now = self._now()
        if self._start is not None:
            self.seconds += now - self._start
        self._start = now

    def state_dict(self) -> dict[str, float]:
        return {'seconds': self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.seconds = state_dict['seconds']
