import copy
import math
import time
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch_geometric.data import Batch
from torch_geometric.utils import scatter
from torchmetrics import MeanSquaredError, MetricCollection, R2Score

from benchmarks.experiments.schedule import warmup_cosine
from benchmarks.experiments.time_budget import TimeBudget
from torch_geometric_erwin.ops.distance import at_least_float


class Regression(LightningModule):
    r"""Learns a vector for every point, such as a velocity or a force.

    Networks see and return numbers of order one: positions :math:`\mathbf{p}`
    and boxes are divided by the length unit :math:`\ell` of the training
    clouds, and what comes out is multiplied by the scale :math:`s` of their
    targets. Both are kept in checkpoints. Inputs, predictions and errors are
    in the units of the data.

    With :obj:`conservative`, networks return one number :math:`\varepsilon_i`
    for every point. These add up to an energy, in units of the target times
    those of length, and its negative gradient is the prediction:

    .. math::
        E(\mathbf{p}) = s \ell \sum_i \varepsilon_i(\mathbf{p} / \ell), \qquad
        \hat{\mathbf{y}}_i = - \frac{\partial E}{\partial \mathbf{p}_i}

    Args:
        net (torch.nn.Module): Called with a batch that has features
            :obj:`x`, positions :obj:`pos`, and :obj:`box` if clouds are
            periodic; returns a row for every point.
        conservative (bool, optional): If set to :obj:`True`, predicts the
            negative gradient of an energy. (default: :obj:`False`)
        lr (float, optional): The highest learning rate.
            (default: :obj:`1e-3`)
        weight_decay (float, optional): Weight decay of matrices; biases and
            norms have none. (default: :obj:`0.01`)
        warmup (float, optional): The part of training in which the learning
            rate rises. (default: :obj:`0.05`)
        clip (float, optional): The largest norm of the gradient.
            (default: :obj:`1.`)

    Raises:
        ValueError: If an argument is out of range; on setup, if network and
            data do not fit each other.
    """
    scale: Tensor
    length: Tensor

    def __init__(
        self,
        net: torch.nn.Module,
        conservative: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        clip: float = 1.,
    ) -> None:
        super().__init__()
        expect(0. < lr < math.inf, 'lr', 'positive', lr)
        expect(0. <= weight_decay < math.inf, 'weight_decay',
               'at least zero', weight_decay)
        expect(0. <= warmup <= 1., 'warmup', 'in [0, 1]', warmup)
        expect(clip > 0., 'clip', 'positive', clip)
        self.save_hyperparameters(ignore='net')
        self.net = net
        self.conservative = conservative
        self.clip = clip
        self.register_buffer('scale', torch.ones(()))
        self.register_buffer('length', torch.ones(()))
        self.metrics = torch.nn.ModuleDict({
            stage: MetricCollection({
                'r2': R2Score(multioutput='variance_weighted'),
                'rmse': MeanSquaredError(squared=False),
            }, prefix=f'{stage}/') for stage in ('val', 'test')
        })
        self._start = 0.

    def setup(self, stage: str) -> None:
        r"""Takes over the units of the data."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            return
        out_channels = 1 if self.conservative else data.dim
        for name, want in (('in_channels', data.num_features),
                           ('out_channels', out_channels)):
            got = getattr(self.net, name, want)
            if got not in (want, -1):
                raise ValueError(f"Expected 'net' to have '{name}' of {want} "
                                 f"for these data (got {got})")
        self.scale.fill_(data.scale)
        self.length.fill_(data.length)

    def forward(self, data: Batch) -> Tensor:
        r"""Predicts the targets, shape :math:`(N, D)`, in their units."""
        if self.conservative:
            return self._predict_force(data)
        return self.scale * self._run_net(data, data.pos.size(1))

    def energy(self, data: Batch) -> Tensor:
        r"""Returns the energy of each cloud, shape :math:`(B)`, in units of
        the target times those of length.
        """
        energy = self._run_net(data, 1).squeeze(1)
        energy = scatter(energy, data.batch, dim_size=data.num_graphs)
        return self.scale * self.length * energy

    def _predict_force(self, data: Batch) -> Tensor:
        # Lightning validates in inference mode, whose tensors have no
        # gradients; copies made outside of it do.
        with torch.inference_mode(False), torch.enable_grad():
            data = data.clone()
            pos = data.pos.requires_grad_()
            grad, = torch.autograd.grad(self.energy(data).sum(), pos,
                                        create_graph=self.training)
        return -grad

    def _run_net(self, data: Batch, channels: int) -> Tensor:
        data = copy.copy(data)
        data.pos = data.pos / self.length
        if 'box' in data:
            data.box = data.box / self.length
        out = self.net(data)
        if out.shape != (data.num_nodes, channels):
            raise ValueError(f"Expected 'net' to return shape "
                             f"{[data.num_nodes, channels]} "
                             f"(got {list(out.shape)})")
        return at_least_float(out)

    def loss(self, pred: Tensor, data: Batch) -> Tensor:
        return F.mse_loss(pred / self.scale, data.y / self.scale)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self(batch), batch)
        lr = self.trainer.optimizers[0].param_groups[0]['lr']
        self.log('train/loss', loss, prog_bar=True, batch_size=batch.num_nodes)
        self.log('train/lr', lr, batch_size=batch.num_nodes)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, 'val')

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, 'test')

    def _evaluate(self, batch: Batch, stage: str) -> None:
        pred = self(batch)
        metrics = self.metrics[stage]
        metrics.update(pred, batch.y)  # type: ignore[operator]
        kwargs = {'batch_size': batch.num_nodes, 'prog_bar': True}
        self.log(f'{stage}/loss', self.loss(pred, batch), sync_dist=True,
                 **kwargs)
        self.log_dict(metrics, **kwargs)  # type: ignore[arg-type]

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
