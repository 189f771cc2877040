r"""Flows that are predicted step by step."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch

from benchmarks.experiments.cli import main
from benchmarks.experiments.data import EAGLEData, MovingJetData
from benchmarks.experiments.rollout_error import RolloutError, running_mean
from benchmarks.experiments.unsteady_flow import (
    UnsteadyFlow,
    is_boundary,
    persistence,
)

CONFIGS = Path(__file__).parents[2] / 'benchmarks' / 'configs'
SMALL = {'num_train': 2, 'num_val': 1, 'num_test': 2, 'num_steps': 12,
         'interval': 20, 'shape': (40, 64), 'horizon': 8, 'start': 4}


class Given(torch.nn.Module):
    r"""Returns differences that it was given, one step after the other,
    times a weight.
    """
    def __init__(self, steps, weight=1.) -> None:
        super().__init__()
        self.steps = steps
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.seen = []

    def forward(self, data: Batch) -> torch.Tensor:
        self.seen.append(data)
        step = (len(self.seen) - 1) % self.steps.size(1)
        return self.weight * self.steps[:, step]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    data = MovingJetData(str(tmp_path_factory.mktemp('jets')), **SMALL)
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope='module')
def batch(data):
    return Batch.from_data_list([*data.clouds['test']])


def make_task(net, data, **kwargs) -> UnsteadyFlow:
    task = UnsteadyFlow(net, **kwargs)
    task._set_units(**{key: getattr(data, key) for key in task.UNITS})
    return task


def test_who_knows_the_differences_knows_the_flow(data, batch):
    truth = (batch.y - data.mean) / data.scale
    net = Given(truth.diff(dim=1))
    task = make_task(net, data).eval()
    assert torch.allclose(task(batch), batch.y, atol=1e-4)
    _, preds = task.unroll(batch)
    assert task.loss(preds, batch) < 1e-10

    # What networks see: the last state, what nodes are, and where.
    assert len(net.seen) == 2 * 7
    for step, seen in enumerate(net.seen[:7]):
        assert torch.allclose(seen.x[:, :4], truth[:, step], atol=1e-5)
        kind = batch.node_type[:, step]
        assert torch.equal(seen.x[:, 4:13].argmax(1), kind)
        pos = batch.pos_window[:, step]
        assert torch.allclose(seen.pos, pos / data.length)
        assert torch.allclose(seen.x[:, 13:].std(0), torch.ones(2), atol=0.3)
        assert seen.num_graphs == 2
        here = batch.edge_step == step
        assert torch.equal(seen.edge_index, batch.edge_index[:, here])


def test_boundaries_are_set_to_the_truth(data, batch):
    zero = torch.zeros(batch.num_nodes, 7, 4)
    task = make_task(Given(zero), data).eval()
    fixed = is_boundary(batch.node_type)
    assert fixed.any() and not fixed.all()
    states = task(batch)
    assert torch.allclose(states[fixed], batch.y[fixed], atol=1e-5)
    free = ~fixed.any(dim=1)
    assert torch.allclose(states[free], batch.y[free, :1].expand(-1, 8, -1),
                          atol=1e-5)

    # A step after it was one, a node goes on from there.
    assert not fixed.all(dim=1)[fixed.any(dim=1)].all()
    for step in range(1, 8):
        now = ~fixed[:, step]
        assert torch.allclose(states[now, step], states[now, step - 1])


def test_gradients_go_through_all_steps(data, batch):
    torch.manual_seed(0)

    class Linear(torch.nn.Linear):
        def forward(self, data):
            return super().forward(data.x)

    task = make_task(Linear(15, 4), data).double()
    batch = batch.clone().apply(
        lambda x: x.double() if x.is_floating_point() else x)
    batch.y.requires_grad_()
    _, preds = task.unroll(batch)
    grad, = torch.autograd.grad(preds[:, -1].square().sum(), batch.y)
    first = grad[:, 0].abs().sum(1)
    fixed = is_boundary(batch.node_type)
    assert (first[~fixed[:, :-1].any(dim=1)] > 0).all()  # were never set
    assert not first[fixed[:, 1:-1].any(dim=1)].any()  # what was is forgotten
    assert not grad[:, -1].any()


def test_loss(data, batch):
    truth = (batch.y - data.mean) / data.scale
    task = make_task(Given(torch.zeros(1)), data, pressure_weight=0.3)
    error = torch.tensor([1., 2., 3., 4.])
    want = (1 + 4) / 2 + 0.3 * (9 + 16) / 2
    loss = task.loss(truth[:, 1:] + error, batch)
    assert loss.item() == pytest.approx(want, rel=1e-4)


def test_noise_is_for_training_and_not_for_boundaries(data, batch):
    torch.manual_seed(0)
    net = Given(torch.zeros(batch.num_nodes, 7, 4))
    task = make_task(net, data, noise=0.5)
    truth = ((batch.y - data.mean) / data.scale)[:, 0]
    fixed = is_boundary(batch.node_type[:, 0])
    task.unroll(batch)
    error = net.seen[0].x[:, :4] - truth
    assert not error[fixed].any()
    assert error[~fixed].std().item() == pytest.approx(0.5, rel=0.05)
    task.eval().unroll(batch)
    assert torch.equal(net.seen[7].x[:, :4], truth)


def test_rollout_error():
    target = torch.zeros(3, 2, 4)
    pred = target.clone()
    pred[0, 0] = torch.tensor([3., 4., 0., 2.])
    pred[2, 1] = torch.tensor([0., 2., 1., 1.])
    metric = RolloutError()
    metric.update(pred, target, torch.tensor([0, 0, 1]))
    want = torch.tensor([[12.5**0.5 / 2, 2**0.5 / 2], [2**0.5, 1.]]) / 2
    assert torch.allclose(metric.compute(), want)
    metric.update(target[:1], target[:1], torch.tensor([0]))
    assert torch.allclose(metric.compute(), want * 2 / 3)
    mean = running_mean(torch.tensor([[2., 0.], [4., 3.], [0., 0.]]))
    assert mean.tolist() == [[2., 0.], [3., 1.5], [2., 1.]]


def test_training_windows_are_the_same_every_time(data):
    def starts(seed, epoch):
        data.seed = seed
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [batch.start.item() for batch in loader]

    data.repeats = 8
    first = starts(0, 0)
    assert len(first) == 16 and len(set(first)) > 3
    assert max(first) <= 12 - 6
    assert starts(0, 0) == first
    assert starts(0, 1) != first and starts(1, 0) != first


def run(command, folder, root, *options):
    sizes = [f'--data.{key}={list(value) if key == "shape" else value}'
             for key, value in SMALL.items()]
    return main([command, f'--config={CONFIGS}/moving_jet.yaml',
                 f'--data.root={root}', f'--trainer.default_root_dir={folder}',
                 '--trainer.max_epochs=1', '--trainer.accelerator=cpu',
                 '--trainer.log_every_n_steps=1', '--data.batch_size=1',
                 '--trainer.enable_progress_bar=false',
                 '--trainer.enable_model_summary=false', *sizes, *options])


@pytest.mark.parametrize('net', ['hybrid', 'erwin', 'graphvit'])
def test_train_and_roll_out(data, tmp_path, monkeypatch, net):
    monkeypatch.setattr(sys, 'argv', sys.argv[:1])
    net = f'--model.net={CONFIGS}/nets/{net}.yaml'
    fit = run('fit', tmp_path, data.root, net)
    assert fit.trainer.global_step == 2
    metrics = fit.trainer.callback_metrics
    assert metrics['val/r2'] < 1 and metrics['train/loss'].isfinite()
    best = tmp_path / 'moving_jet/version_0/checkpoints/best.ckpt'
    test = run('test', tmp_path, data.root, net, f'--ckpt_path={best}')
    found = {key: value.item()
             for key, value in test.trainer.callback_metrics.items()}
    assert {*found} == {f'test/{name}_{step}'
                        for name in ('velocity', 'pressure')
                        for step in (1, 7)}

    # The curves say the same, and how good it is to do nothing.
    with open(Path(test.trainer.log_dir, 'rollout.csv')) as file:
        rows = [{key: float(value) for key, value in row.items()}
                for row in csv.DictReader(file)]
    assert [row['step'] for row in rows] == [*range(1, 8)]
    for name in ('velocity', 'pressure'):
        curve = [row[name] for row in rows]
        assert found[f'test/{name}_1'] == pytest.approx(curve[0])
        assert found[f'test/{name}_7'] == pytest.approx(sum(curve) / 7)
    batch = Batch.from_data_list([*data.clouds['test']])
    metric = RolloutError()
    metric.update(persistence(batch), batch.y, batch.batch)
    assert rows[-1]['velocity_persistence'] == pytest.approx(
        metric.compute()[-1, 0].item(), rel=1e-4)

    loaded = UnsteadyFlow.load_from_checkpoint(best, map_location='cpu')
    assert torch.equal(loaded.scale, data.scale)


def test_predictions_that_are_not_finite(data, batch):
    task = make_task(Given(torch.full((batch.num_nodes, 7, 4), 1e38)), data)
    with pytest.raises(FloatingPointError, match='from step 1 of'):
        task.scale.fill_(1e6)
        task.test_step(batch, 0)


def test_errors(data, tmp_path):
    with pytest.raises(ValueError, match=r"'val_window' .* at least 2"):
        MovingJetData(val_window=1)
    with pytest.raises(ValueError, match='8 steps'):
        MovingJetData(data.root, **SMALL | {'start': 5}).setup()
    with pytest.raises(FileNotFoundError, match='EAGLE'):
        EAGLEData(str(tmp_path)).setup()
    for name in ('noise', 'pressure_weight'):
        with pytest.raises(ValueError, match=f"'{name}' .*-1"):
            UnsteadyFlow(torch.nn.Identity(), **{name: -1.})
