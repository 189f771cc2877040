import math
import time
from typing import Any

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

    Raises:
        ValueError: If :obj:`minutes` is not a positive time.
    """
    def __init__(self, minutes: float) -> None:
        if not 0 < minutes < math.inf:
            raise ValueError(f"Expected 'minutes' to be a positive time "
                             f"(got {minutes})")
        self.minutes = minutes
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
        self._start = time.perf_counter()

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
        self._stop_in_time(trainer)

    def on_validation_start(self, trainer: Trainer,
                            pl_module: LightningModule) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._count()
        self._start = None

    def on_validation_end(self, trainer: Trainer,
                          pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def _stop_in_time(self, trainer: Trainer) -> None:
        trainer.should_stop = trainer.should_stop or self.progress >= 1.

    def _count(self) -> None:
        now = time.perf_counter()
        if self._start is not None:
            self.seconds += now - self._start
        self._start = now

    def state_dict(self) -> dict[str, float]:
        return {'seconds': self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.seconds = state_dict['seconds']
