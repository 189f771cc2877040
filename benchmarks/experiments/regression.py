from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import scatter
from torchmetrics import MeanSquaredError, MetricCollection, R2Score

from benchmarks.experiments.data import PointClouds
from benchmarks.experiments.normalized import Normalized
from benchmarks.experiments.relative_l2 import RelativeL2


class Regression(Normalized):
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
    def __init__(
        self,
        net: torch.nn.Module,
        conservative: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        clip: float = 1.,
    ) -> None:
        super().__init__(net, lr=lr, weight_decay=weight_decay,
                         warmup=warmup, clip=clip)
        self.save_hyperparameters(ignore='net')
        self.conservative = conservative
        self.metrics = torch.nn.ModuleDict({
            stage: MetricCollection({
                'r2': R2Score(multioutput='variance_weighted'),
                'rmse': MeanSquaredError(squared=False),
                'rel_l2': RelativeL2(),
            }, prefix=f'{stage}/') for stage in ('val', 'test')
        })

    def _check_fit(self, data: PointClouds) -> None:
        if self.conservative and not data.is_vector:
            raise ValueError("Expected 'conservative' to be False for these "
                             "data, which are no vectors (got True)")
        out_channels = 1 if self.conservative else data.out_channels
        self._check_channels(data.num_features, out_channels)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Before there were fields, there was no mean.
        checkpoint['state_dict'].setdefault('mean', self.mean)
        super().on_load_checkpoint(checkpoint)

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

    def loss(self, pred: Tensor, data: Batch) -> Tensor:
        return F.mse_loss(pred / self.scale, data.y / self.scale)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._log_training(self.loss(self(batch), batch), batch)

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
