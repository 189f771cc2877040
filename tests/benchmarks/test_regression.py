import math

import pytest
import torch
from torch_geometric.data import Batch

from benchmarks.experiments.optimized import rate
from benchmarks.experiments.regression import Regression
from tests.benchmarks.tiny import TinyClouds, TinyNet, to_double


@pytest.fixture
def data():
    data = TinyClouds(batch_size=2)
    data.setup()
    return data


class Constant(torch.nn.Module):
    r"""Predicts what it is told."""
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(value)

    def forward(self, data: Batch) -> torch.Tensor:
        return self.value.expand(data.num_nodes, -1)


class Springs(torch.nn.Module):
    def forward(self, data: Batch) -> torch.Tensor:
        return 0.5 * data.pos.square().sum(dim=1, keepdim=True)


def test_networks_see_the_units_of_the_data(data, trainer):
    module = Regression(Constant(torch.tensor([1., 2., 3.])))
    trainer().validate(module, data, verbose=False)
    y = torch.cat([cloud.y for cloud in data.clouds['train']])
    assert module.scale.item() == pytest.approx(
        y.square().mean().sqrt().item())
    volume = sum(cloud.box.prod() for cloud in data.clouds['train'])
    assert module.length.item() == pytest.approx(
        (volume / len(y)).item()**(1 / 3))
    batch = Batch.from_data_list(data.clouds['val'])
    want = module.scale * torch.tensor([1., 2., 3.])
    assert torch.equal(module(batch)[7], want)

    seen = []
    module.net.register_forward_hook(lambda _, args, out: seen.append(*args))
    pos, box = batch.pos.clone(), batch.box.clone()
    module(batch)
    assert torch.equal(seen[0].pos, pos / module.length)
    assert torch.equal(seen[0].box, box / module.length)
    assert torch.equal(batch.pos, pos) and torch.equal(batch.box, box)


def test_forces_are_the_gradient_of_the_energy_in_the_units_of_the_data(data):
    torch.manual_seed(0)
    module = Regression(TinyNet(out_channels=1), conservative=True).double()
    module.scale.fill_(7.)
    module.length.fill_(0.3)
    batch = to_double(Batch.from_data_list(data.clouds['val']))
    force = module(batch)
    assert force.requires_grad and not batch.pos.requires_grad

    def energy(step: float) -> torch.Tensor:
        moved = batch.clone()
        moved.pos[40, 1] += step
        return module.energy(moved)

    energies = (energy(1e-6) - energy(-1e-6)) / 2e-6
    assert torch.allclose(-energies, torch.stack(
        [torch.zeros_like(force[40, 1]), force[40, 1]]), rtol=1e-6)


def test_energy_has_the_units_of_target_times_length(data):
    r"""E = s l sum (p / l)^2 / 2, so that F = - s p / l."""
    module = Regression(Springs(), conservative=True)
    module.scale.fill_(7.)
    module.length.fill_(0.3)
    batch = Batch.from_data_list(data.clouds['val'])
    assert torch.allclose(module(batch), -7. * batch.pos / 0.3)
    want = 3.5 / 0.3 * batch[1].pos.square().sum()
    assert torch.allclose(module.energy(batch)[1], want)


@pytest.mark.parametrize('conservative', [False, True])
def test_metrics(data, trainer, conservative):
    torch.manual_seed(0)
    net = TinyNet(out_channels=1 if conservative else 3)
    module = Regression(net, conservative=conservative)
    data.batch_size = 1
    got, = trainer().test(module, data, verbose=False)
    clouds = Batch.from_data_list(data.clouds['test'])
    error = (module(clouds) - clouds.y).detach()
    assert got['test/rmse'] == pytest.approx(error.square().mean().sqrt())
    assert got['test/loss'] == pytest.approx(
        (error / module.scale).square().mean().item(), rel=1e-5)
    spread = clouds.y - clouds.y.mean(dim=0)
    assert got['test/r2'] == pytest.approx(
        1 - (error.square().sum() / spread.square().sum()).item(), abs=1e-5)


@pytest.mark.parametrize('conservative', [False, True])
def test_learns_from_another_network(data, trainer, conservative):
    torch.manual_seed(0)
    teacher, module = (
        Regression(TinyNet(out_channels=1 if conservative else 3),
                   conservative, lr=3e-2) for _ in range(2))
    for clouds in data.clouds.values():
        for cloud in clouds:
            cloud.y = teacher(Batch.from_data_list([cloud])).detach()
    data.augment = False
    runner = trainer(max_epochs=30)
    runner.fit(module, data)
    assert runner.callback_metrics['val/r2'] > 0.5
    assert {'train/loss', 'train/lr', 'train/seconds', 'val/loss',
            'val/rmse'} <= set(runner.callback_metrics)


def test_weights_decay_but_biases(data, trainer):
    module = Regression(TinyNet(), weight_decay=0.3)
    runner = trainer()
    runner.fit(module, data)
    decaying, rest = runner.optimizers[0].param_groups
    assert decaying['weight_decay'] == 0.3 and rest['weight_decay'] == 0
    assert [p.dim() for p in decaying['params']] == [2, 2, 2]
    assert [p.dim() for p in rest['params']] == [1, 1, 1]


def test_rate_rises_and_falls_within_the_steps_there_are(data, trainer):
    found = []

    class Spy(Regression):
        def on_before_optimizer_step(self, optimizer):
            found.append(optimizer.param_groups[0]['lr'])

    trainer(max_epochs=4).fit(Spy(TinyNet(), lr=2., warmup=0.25), data)
    assert found == [pytest.approx(2 * rate(i, 12, 0.25)) for i in range(12)]
    assert found[:3] == [pytest.approx(x) for x in (1 / 3, 1., 5 / 3)]
    assert 0 < found[-1] < 0.05 and max(found) == found[3] > 1.9


def test_gradients_are_clipped(data, trainer):
    norms = []

    class Spy(Regression):
        def on_before_zero_grad(self, optimizer):
            grads = [p.grad for p in self.parameters() if p.grad is not None]
            norms.extend([torch.cat([g.flatten() for g in grads]).norm()]
                         if grads else [])

    trainer().fit(Spy(TinyNet(), clip=1e-3), data)
    assert norms and max(norms) < 1.001e-3


def test_no_end_in_sight(data, trainer):
    with pytest.raises(ValueError, match=r'max_epochs.*TimeBudget'):
        trainer(max_epochs=-1).fit(Regression(TinyNet()), data)


@pytest.mark.parametrize('options', [
    {'lr': 0.}, {'lr': math.nan}, {'weight_decay': -1.}, {'warmup': 1.1},
    {'clip': 0.}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=f"'{next(iter(options))}' to be"):
        Regression(TinyNet(), **options)


@pytest.mark.parametrize('net, conservative, match', [
    (TinyNet(out_channels=2), False, r"'out_channels' of 3 .*\(got 2\)"),
    (TinyNet(out_channels=3), True, r"'out_channels' of 1 .*\(got 3\)"),
    (TinyNet(in_channels=5), False, r"'in_channels' of 2 .*\(got 5\)"),
    # These do not tell what they return:
    (Constant(torch.zeros(1)), False, r'shape \[60, 3\] \(got \[60, 1\]\)'),
    (Constant(torch.zeros(3)), True, r'shape \[60, 1\] \(got \[60, 3\]\)'),
])
def test_networks_of_another_size(data, trainer, net, conservative, match):
    runner = trainer()
    with pytest.raises(ValueError, match=match):
        runner.fit(Regression(net, conservative), data)
    assert runner.global_step == 0
