from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.speed.process import forget_peak, status


class PeakMemory(Callback):
    r"""Measures how much memory a step of training takes on the CPU, at most:
    the peak of the first epoch above what is in use when it begins, in bytes
    (Linux). What the optimizer keeps is part of it. Kept in checkpoints.
    """
    def __init__(self) -> None:
        self.bytes = 0
        self._before: int | None = None

    def on_train_start(self, trainer: Trainer,
                       pl_module: LightningModule) -> None:
        forget_peak()
        self._before = status('VmRSS')

    def on_train_batch_end(self, trainer: Trainer,
                           pl_module: LightningModule, outputs: Any,
                           batch: Any, batch_idx: int) -> None:
        if self._before is not None:
            self.bytes = status('VmHWM') - self._before

    def on_validation_start(self, trainer: Trainer,
                            pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._before = None

    def state_dict(self) -> dict[str, int]:
        return {'bytes': self.bytes}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.bytes = state_dict['bytes']
