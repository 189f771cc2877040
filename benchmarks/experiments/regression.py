import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import scatter
from torchmetrics import MeanSquaredError, MetricCollection, R2Score

from benchmarks.experiments.data import PointClouds
from benchmarks.experiments.optimized import Optimized
from benchmarks.experiments.relative_l2 import RelativeL2
from torch_geometric_erwin.ops.distance import at_least_float


class Regression(Optimized):
    r"""Learns a vector, such as a velocity or a force, or the values of some
    fields for every point.

    Networks see and return numbers of order one: positions :math:`\mathbf{p}`
    and boxes are divided by the length unit :math:`\ell` of the training
    clouds, and what comes out is multiplied by the scale :math:`s` of their
    targets. For fields, that is their standard deviation, and their mean is
    added. All are kept in checkpoints. Inputs, predictions and errors are in
    the units of the data.

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
    mean: Tensor
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
        super().__init__(net, lr, weight_decay, warmup, clip)
        self.save_hyperparameters(ignore='net')
        self.conservative = conservative
        self.register_buffer('mean', torch.zeros(()))
        self.register_buffer('scale', torch.ones(()))
        self.register_buffer('length', torch.ones(()))
        self.metrics = torch.nn.ModuleDict({
            stage: MetricCollection({
                'r2': R2Score(multioutput='variance_weighted'),
                'rmse': MeanSquaredError(squared=False),
                'rel_l2': RelativeL2(),
            }, prefix=f'{stage}/') for stage in ('val', 'test')
        })

    def setup(self, stage: str) -> None:
        r"""Takes over the units of the data."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            return
        self._check_fit(data)
        self._set_units(mean=data.mean, scale=data.scale)
        self.length.fill_(data.length)

    def _check_fit(self, data: PointClouds) -> None:
        if self.conservative and not data.is_vector:
            raise ValueError("Expected 'conservative' to be False for these "
                             "data, which are no vectors (got True)")
        out_channels = 1 if self.conservative else data.out_channels
        for name, want in (('in_channels', data.num_features),
                           ('out_channels', out_channels)):
            got = getattr(self.net, name, want)
            if got not in (want, -1):
                raise ValueError(f"Expected 'net' to have '{name}' of {want} "
                                 f"for these data (got {got})")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        r"""Makes room for as many fields as the checkpoint has."""
        state = checkpoint['state_dict']
        state.setdefault('mean', self.mean)  # before there were fields
        self._set_units(mean=state['mean'], scale=state['scale'])

    def _set_units(self, **units: float | Tensor) -> None:
        for key, value in units.items():
            value = torch.as_tensor(value)
            setattr(self, key, value.to(getattr(self, key), copy=True))

    def forward(self, data: Batch) -> Tensor:
        r"""Predicts the targets, shape :math:`(N, D)`, or :math:`(N, C)` for
        :math:`C` fields, in their units.
        """
        if self.conservative:
            return self._predict_force(data)
        channels = self.scale.numel() if self.scale.dim() else data.pos.size(1)
        return self.mean + self.scale * self._run_net(data, channels)

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
        metrics.update(pred, batch.y,  # type: ignore[operator]
                       batch=batch.batch)
        kwargs = {'batch_size': batch.num_nodes, 'prog_bar': True}
        self.log(f'{stage}/loss', self.loss(pred, batch), sync_dist=True,
                 **kwargs)
        self.log_dict(metrics, **kwargs)  # type: ignore[arg-type]
