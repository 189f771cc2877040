import math
import time
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch_geometric.data import Batch

from benchmarks.experiments.schedule import warmup_cosine
from benchmarks.experiments.time_budget import TimeBudget


class Optimized(LightningModule):
    r"""How networks are optimized: by AdamW, with a learning rate that rises
    and falls to zero along a cosine, over the steps or the
    :class:`TimeBudget` of the trainer.

    Derived classes save their hyperparameters.

    Args:
        net (torch.nn.Module): The network.
        lr (float): The highest learning rate.
        weight_decay (float): Weight decay of matrices; biases and norms have
            none.
        warmup (float): The part of training in which the learning rate
            rises.
        clip (float): The largest norm of the gradient.

    Raises:
        ValueError: If an argument is out of range.
    """
    def __init__(self, net: torch.nn.Module, lr: float, weight_decay: float,
                 warmup: float, clip: float) -> None:
        super().__init__()
        expect(0. < lr < math.inf, 'lr', 'positive', lr)
        expect(0. <= weight_decay < math.inf, 'weight_decay',
               'at least zero', weight_decay)
        expect(0. <= warmup <= 1., 'warmup', 'in [0, 1]', warmup)
        expect(clip > 0., 'clip', 'positive', clip)
        self.net = net
        self.clip = clip
        self._start = 0.

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: Batch,
                           batch_idx: int) -> None:
        self.log('train/seconds', time.perf_counter() - self._start,
                 batch_size=batch.num_nodes)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip = self.clip if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, clip, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        params = [p for p in self.net.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {'params': [p for p in params if p.dim() > 1]},
            {'params': [p for p in params if p.dim() < 2], 'weight_decay': 0.},
        ]
        optimizer = AdamW(groups, lr=self.hparams['lr'],
                          weight_decay=self.hparams['weight_decay'])
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(c, TimeBudget) for c in callbacks):
            return optimizer
        schedule = LambdaLR(optimizer, partial(
            rate, steps=self._num_steps(), warmup=self.hparams['warmup']))
        return {'optimizer': optimizer,
                'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}

    def _num_steps(self) -> float:
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise ValueError("Expected 'trainer.max_epochs' or "
                             "'trainer.max_steps' to be given, or a "
                             "'TimeBudget' (got none)")
        return steps


def rate(step: int, steps: float, warmup: float) -> float:
    # In the middle of a step: neither the first nor the last is in vain.
    return warmup_cosine((step + 0.5) / steps, warmup)


def expect(holds: bool, name: str, what: str, value: float) -> None:
    if not holds:
        raise ValueError(f"Expected '{name}' to be {what} (got {value})")
