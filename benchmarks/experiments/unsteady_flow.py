import csv
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch
from torchmetrics import R2Score

from benchmarks.experiments.data import UnsteadyFlows
from benchmarks.experiments.normalized import Normalized
from benchmarks.experiments.optimized import expect
from benchmarks.experiments.rollout_error import RolloutError, running_mean
from torch_geometric_erwin.datasets.eagle import FIELDS, NUM_TYPES

BOUNDARY = 2, 4, 6  # disabled, inlet, wall
HORIZONS = 1, 10, 50, 100, 250, 400
COLUMNS = 'velocity', 'pressure'


class UnsteadyFlow(Normalized):
    r"""Learns to predict how a flow goes on, one step after the other, from
    windows of :class:`~torch_geometric_erwin.datasets.EAGLE`.

    From the state :math:`\mathbf{s}_t` of each node, its velocity and
    pressures, which have zero mean and unit variance over the data, networks
    predict the difference to the next one. Nodes at inlets and walls, and
    disabled ones, :math:`\mathcal{B}_{t+1}`, are then set to the truth
    :math:`\mathbf{s}^*`:

    .. math::
        \tilde{\mathbf{s}}_{t+1} = \mathbf{s}_t + f(\mathbf{s}_t,
        \mathbf{p}_t, \mathcal{E}_t), \qquad
        \mathbf{s}_{i,t+1} = \begin{cases}
        \mathbf{s}^*_{i,t+1} & i \in \mathcal{B}_{t+1} \\
        \tilde{\mathbf{s}}_{i,t+1} & \text{else} \end{cases}

    Only the first state of a window is given. In training, gradients go
    through all of its steps. The loss is the mean squared error of the
    velocities :math:`\tilde{\mathbf{s}}`, at all nodes and steps, plus that
    of the pressures times :obj:`pressure_weight`, as in the `"Erwin"
    <https://arxiv.org/abs/2502.17019>`_ and `"EAGLE"
    <https://arxiv.org/abs/2302.10803>`_ papers.

    :obj:`val/r2` is the coefficient of determination of how nodes change from
    the beginning to the end of a window, those that are not set to the truth,
    each of the four fields counting alike: about zero if everything stays as
    it is. Tests report :class:`RolloutError`, averaged up to several steps,
    as :obj:`test/velocity_10` and so on, in the units of the data, and write
    it for all steps to :obj:`rollout.csv` in the folder of the run, beside
    that of flows which stay as they are between boundaries that do not.

    Args:
        net (torch.nn.Module): Called with a batch of nodes, one step of their
            windows: features :obj:`x`, which are the state, the type of the
            node, one-hot among nine, and, with :obj:`positions`, where it is;
            positions :obj:`pos`, and the edges of the mesh,
            :obj:`edge_index`. Returns four numbers for every node.
        positions (bool, optional): If set to :obj:`False`, positions are not
            among the features. (default: :obj:`True`)
        pressure_weight (float, optional): The weight of pressures in the
            loss. (default: :obj:`0.1`)
        noise (float, optional): Standard deviation of what is added to the
            first state of training windows, but not at boundaries.
            (default: :obj:`0.`)
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
        FloatingPointError: If predictions are not finite in validation or
            testing.
    """
    UNITS = *Normalized.UNITS, 'pos_mean', 'pos_scale'

    pos_mean: Tensor
    pos_scale: Tensor

    def __init__(
        self,
        net: torch.nn.Module,
        positions: bool = True,
        pressure_weight: float = 0.1,
        noise: float = 0.,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        clip: float = 1.,
    ) -> None:
        super().__init__(net, lr=lr, weight_decay=weight_decay,
                         warmup=warmup, clip=clip)
        expect(0. <= pressure_weight < math.inf, 'pressure_weight',
               'at least zero', pressure_weight)
        expect(0. <= noise < math.inf, 'noise', 'at least zero', noise)
        self.save_hyperparameters(ignore='net')
        self.positions = positions
        self.pressure_weight = pressure_weight
        self.noise = noise
        self.r2 = R2Score()
        self.error, self.persistence = RolloutError(), RolloutError()

    def _check_fit(self, data: UnsteadyFlows) -> None:
        dim = len(data.pos_mean) if self.positions else 0
        self._check_channels(len(FIELDS) + NUM_TYPES + dim, len(FIELDS))

    def forward(self, data: Batch) -> Tensor:
        r"""Predicts the states at all steps of windows, shape
        :math:`(N, S, 4)`, in their units. Of the true ones, the first is
        read, and those at boundaries.
        """
        states, _ = self.unroll(data)
        return self.mean + self.scale * states

    def unroll(self, data: Batch) -> tuple[Tensor, Tensor]:
        r"""Returns normalized states at all steps, :math:`(N, S, 4)`, and
        what was predicted of all but the first before boundaries were set.
        """
        truth, fixed = self.normalize(data.y), is_boundary(data.node_type)
        edges = edges_by_step(data)
        state = self._disturb(truth[:, 0], fixed[:, 0])
        states, preds = [state], []
        for step in range(truth.size(1) - 1):
            x = self._features(data, state, step)
            preds.append(state + self._run_net(Batch(
                x=x, pos=data.pos_window[:, step], edge_index=edges[step],
                batch=data.batch, ptr=data.ptr), len(FIELDS)))
            state = torch.where(fixed[:, step + 1, None], truth[:, step + 1],
                                preds[-1])
            states.append(state)
        return torch.stack(states, dim=1), torch.stack(preds, dim=1)

    def normalize(self, y: Tensor) -> Tensor:
        return (y - self.mean) / self.scale

    def _disturb(self, state: Tensor, fixed: Tensor) -> Tensor:
        if not self.training or self.noise == 0.:
            return state
        noise = self.noise * torch.randn_like(state)
        return torch.where(fixed[:, None], state, state + noise)

    def _features(self, data: Batch, state: Tensor, step: int) -> Tensor:
        parts = [state, F.one_hot(data.node_type[:, step], NUM_TYPES)]
        if self.positions:
            pos = data.pos_window[:, step]
            parts.append((pos - self.pos_mean) / self.pos_scale)
        return torch.cat(parts, dim=1)

    def loss(self, preds: Tensor, data: Batch) -> Tensor:
        error = (preds - self.normalize(data.y)[:, 1:]).square()
        return (error[..., :2].mean()
                + self.pressure_weight * error[..., 2:].mean())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        _, preds = self.unroll(batch)
        return self._log_training(self.loss(preds, batch), batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        states, preds = self.unroll(batch)
        check_finite(states)
        truth = self.normalize(batch.y)
        free = ~is_boundary(batch.node_type[:, -1])
        self.r2.update(*((x[:, -1] - x[:, 0])[free] for x in (states, truth)))
        self.log('val/loss', self.loss(preds, batch), prog_bar=True,
                 sync_dist=True, batch_size=batch.num_nodes)
        self.log('val/r2', self.r2, prog_bar=True, batch_size=batch.num_nodes)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        states = self(batch)
        check_finite(states)
        for metric, pred in ((self.error, states),
                             (self.persistence, persistence(batch))):
            metric.update(pred[:, 1:], batch.y[:, 1:], batch.batch)

    def on_test_epoch_end(self) -> None:
        errors = self.error.compute()
        mean, last = running_mean(errors), len(errors)
        for step in {*(h for h in HORIZONS if h < last), last}:
            for name, value in zip(COLUMNS, mean[step - 1], strict=True):
                self.log(f'test/{name}_{step}', value)
        curves = torch.cat([errors, self.persistence.compute()], dim=1)
        folder = self.trainer.log_dir
        if self.trainer.is_global_zero and folder is not None:
            write_curves(Path(folder), curves)
        self.error.reset()
        self.persistence.reset()


def is_boundary(node_type: Tensor) -> Tensor:
    r"""Returns which nodes are set to the truth."""
    return torch.isin(node_type, node_type.new_tensor(BOUNDARY))


def edges_by_step(data: Batch) -> tuple[Tensor, ...]:
    r"""Returns the edges of the mesh at each step of a window."""
    order = data.edge_step.argsort(stable=True)
    sizes = torch.bincount(data.edge_step, minlength=data.y.size(1))
    return data.edge_index[:, order].split(sizes.tolist(), dim=1)


def persistence(data: Batch) -> Tensor:
    r"""What would be if flows stayed as they are, shape
    :math:`(N, S, 4)`, but for what boundaries leave behind.
    """
    states, fixed = [data.y[:, 0]], is_boundary(data.node_type)
    for truth, known in zip(data.y.unbind(1)[1:], fixed.unbind(1)[1:],
                            strict=True):
        states.append(torch.where(known[:, None], truth, states[-1]))
    return torch.stack(states, dim=1)


def check_finite(states: Tensor) -> None:
    finite = states.isfinite().all(dim=2).all(dim=0)
    if not bool(finite.all()):
        step = int((~finite).nonzero()[0])
        raise FloatingPointError(f"Expected predictions to be finite (got "
                                 f"others from step {step} of the window on)")


def write_curves(folder: Path, curves: Tensor) -> None:
    r"""Writes errors of each step, :math:`(T, 4)`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'rollout.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['step', *COLUMNS,
                         *(f'{name}_persistence' for name in COLUMNS)])
        for step, row in enumerate(curves.tolist(), 1):
            writer.writerow([step, *row])
