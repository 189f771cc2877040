r"""Unsteady flows: windows of simulations, training and rollouts."""

import csv

import pytest
import torch
from torch_geometric.data import Batch

from benchmarks.experiments.data import EAGLEData
from benchmarks.experiments.unsteady_flow import UnsteadyFlow, edges_by_step
from tests.datasets.eagle_writer import POINTS, STEPS, write_all
from torch_geometric_erwin.datasets import EAGLE

WINDOWS = dict(horizon=8, start=3)
BOUNDARY = {2, 4, 6}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp('eagle')
    write_all(path)
    return str(path)


@pytest.fixture
def data(root):
    data = EAGLEData(root, batch_size=2, **WINDOWS)
    data.setup()
    return data


class Net(torch.nn.Module):
    r"""Returns what a function makes of a step, and a parameter."""
    def __init__(self, function, in_channels=15):
        super().__init__()
        self.function = function
        self.in_channels, self.out_channels = in_channels, 4
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, data):
        self.seen.append(data)
        return self.function(data, self.weight)


def stay(data, weight):
    return weight * data.x[:, :4]


def make_module(function, data, **kwargs):
    net = Net(function, 15 if kwargs.get('positions', True) else 13)
    module = UnsteadyFlow(net, **kwargs)
    module._set_units(**{key: getattr(data, key) for key in module.UNITS})
    return module


def make_batch(data, split='test'):
    # All points of the test simulation twice, to have several clouds.
    window = data.clouds[split][0]
    return Batch.from_data_list([window, window])


def is_boundary(data):
    return torch.tensor([[kind in BOUNDARY for kind in row]
                         for row in data.node_type.tolist()])


def exact(batch, data):
    r"""Knows the differences between states that follow each other."""
    truth = (batch.y - data.mean) / data.scale
    steps = iter(truth.diff(dim=1).unbind(1))
    return lambda data, weight: next(steps) + weight


def test_windows(data):
    assert [data.windows[key] for key in ('train', 'val', 'test')] == [
        6, 2, 8]
    for split, steps in (('val', 2), ('test', 8)):
        window = data.clouds[split][0]
        assert window.start.item() == 3
        assert window.y.shape == (POINTS, steps, 4)
    mean, std = EAGLE.normalization()['y']
    assert torch.equal(data.mean, mean) and torch.equal(data.scale, std)
    assert data.pos_mean.shape == data.pos_scale.shape == (2, )


def starts(root, epochs=(0, ), **kwargs):
    data = EAGLEData(root, repeats=20, **WINDOWS, **kwargs)
    data.setup()
    loader = data.train_dataloader()
    found = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        found.append([batch.start.item() for batch in loader])
    return found


def test_training_windows_begin_at_random(root):
    first, second = starts(root, (0, 1))
    assert {*first, *second} == {*range(STEPS - 5)} and first != second
    assert starts(root, (1, ), num_workers=1) == [second]
    assert starts(root, seed=1) != [first]


def test_drawing_windows_leaves_other_random_numbers_alone(data):
    state = torch.get_rng_state()
    windows = data.clouds['train']
    assert len({windows[0, seed].start.item() for seed in range(9)}) > 1
    assert torch.equal(torch.get_rng_state(), state)


def test_what_networks_are_given(data):
    batch = make_batch(data)
    module = make_module(stay, data).eval()
    module(batch)
    assert len(module.net.seen) == 7
    for step, given in enumerate(module.net.seen):
        pos = batch.pos_window[:, step]
        assert torch.allclose(given.pos * module.length, pos, atol=1e-6)
        assert torch.equal(given.x[:, 4:13].argmax(dim=1),
                           batch.node_type[:, step])
        assert torch.allclose(given.x[:, 13:],
                              (pos - data.pos_mean) / data.pos_scale)
        edges = batch.edge_index[:, batch.edge_step == step]
        assert {*map(tuple, given.edge_index.t().tolist())} == {
            *map(tuple, edges.t().tolist())}
        assert given.num_graphs == 2
        assert torch.equal(given.batch, batch.batch)
    first = (batch.y[:, 0] - data.mean) / data.scale
    assert torch.allclose(module.net.seen[0].x[:, :4], first)
    assert sum(edges.size(1) for edges in edges_by_step(batch)) == (
        batch.num_edges)
    module = make_module(stay, data, positions=False)
    module(batch)
    assert module.net.seen[0].x.size(1) == 13


def test_boundaries_are_the_truth(data):
    batch = make_batch(data)
    module = make_module(lambda data, weight: data.x[:, :4].cos() + weight,
                         data)
    states, fixed = module.eval()(batch), is_boundary(batch)
    assert fixed.any() and not fixed.all()
    assert torch.allclose(states[fixed], batch.y[fixed], atol=1e-5)
    error = (states - batch.y)[:, 1:].abs().amax(dim=2)
    assert error[~fixed[:, 1:]].min() > 1e-3


def test_exact_differences_have_no_error(data, trainer):
    batch = Batch.from_data_list([data.clouds['test'][0]])
    module = make_module(exact(batch, data), data)
    got, = trainer().test(module, data, verbose=False)
    assert {*got} == {f'test/{name}_{step}' for step in (1, 7)
                      for name in ('velocity', 'pressure')}
    assert max(got.values()) < 1e-5
    for split in ('train', 'val'):
        key = (0, 5) if split == 'train' else 0
        batch = Batch.from_data_list([data.clouds[split][key]])
        module = make_module(exact(batch, data), data)
        _, preds = module.unroll(batch)
        assert module.loss(preds, batch) < 1e-10


def by_hand(window, fixed, fields):
    r"""The error if nothing changes but boundaries, at each step."""
    curve, known = [], [0] * POINTS  # the last step that was set
    for step in range(1, window.y.size(1)):
        total = 0.
        for node in range(POINTS):
            if fixed[node, step]:
                known[node] = step
            change = window.y[node, step] - window.y[node, known[node]]
            total += (sum(change[i].item()**2 for i in fields) / 2)**0.5
        curve.append(total / POINTS)
    return curve


def test_errors_by_hand(data, trainer, tmp_path):
    window = data.clouds['test'][0]
    fixed = is_boundary(window)
    curves = {'velocity': by_hand(window, fixed, (0, 1)),
              'pressure': by_hand(window, fixed, (2, 3))}
    run = trainer(logger=True)
    got, = run.test(make_module(stay, data), data, verbose=False)
    with open(f'{run.log_dir}/rollout.csv') as file:
        rows = list(csv.DictReader(file))
    assert [row['step'] for row in rows] == [str(i) for i in range(1, 8)]
    for name, curve in curves.items():
        assert got[f'test/{name}_1'] == pytest.approx(curve[0], rel=1e-4)
        assert got[f'test/{name}_7'] == pytest.approx(sum(curve) / 7,
                                                      rel=1e-4)
        for key in (name, f'{name}_persistence'):
            assert [float(row[key]) for row in rows] == pytest.approx(
                curve, rel=1e-4)


def test_validation(data, trainer):
    got, = trainer().validate(make_module(stay, data), data, verbose=False)
    assert got['val/r2'] <= 0  # as it stays
    batch = Batch.from_data_list([data.clouds['val'][0]])
    module = make_module(exact(batch, data), data)
    got, = trainer().validate(module, data, verbose=False)
    assert got['val/r2'] == pytest.approx(1.) and got['val/loss'] < 1e-10


def test_gradients_run_through_the_window(data):
    batch = make_batch(data)
    batch.node_type.zero_()
    module = make_module(stay, data)
    states, preds = module.unroll(batch)
    # Each step multiplies by one plus the weight.
    grad, = torch.autograd.grad(preds[:, -1].sum(), module.net.weight)
    assert grad.item() == pytest.approx(7 * states[:, 0].sum().item(),
                                        rel=1e-4)


def test_loss(data):
    batch = make_batch(data)
    module = make_module(stay, data, pressure_weight=0.5)
    _, preds = module.unroll(batch)
    true = ((batch.y - data.mean) / data.scale)[:, 1:]
    for field, weight in enumerate((0.5, 0.5, 0.25, 0.25)):
        error = torch.zeros(4)
        error[field] = 3.
        assert module.loss(true + error, batch).item() == pytest.approx(
            9 * weight)
    assert module.loss(preds, batch) > 0


def test_noise(data):
    batch = make_batch(data)
    module = make_module(stay, data, noise=0.1)
    states, _ = module.unroll(batch)
    fixed = is_boundary(batch)
    truth = (batch.y - data.mean) / data.scale
    noise = (states - truth)[:, 0]
    assert torch.equal(noise[fixed[:, 0]], 0 * noise[fixed[:, 0]])
    assert (noise[~fixed[:, 0]] != 0).all() and noise.abs().max() < 1
    assert torch.equal(module.eval().unroll(batch)[0][:, 0], truth[:, 0])


def test_what_is_not_finite_is_reported(data, trainer):
    module = make_module(
        lambda data, weight: data.x[:, :4] * 1e30 + weight, data)
    for run in (trainer().test, trainer().validate):
        data.windows['val'] = 8
        data.clouds['val'] = data.clouds['test']
        with pytest.raises(FloatingPointError, match=r'finite .*step 2 '):
            run(module, data, verbose=False)


@pytest.mark.parametrize('options', [
    dict(horizon=10, start=3), dict(window=13),
    dict(val_window=10)])
def test_windows_longer_than_the_simulation(root, options):
    with pytest.raises(ValueError, match=r'sim\.npz.*steps.*got 12 in all'):
        EAGLEData(root, **{**WINDOWS, **options}).setup()


@pytest.mark.parametrize('name', ['window', 'val_window', 'horizon'])
def test_windows_that_leave_nothing_to_predict(root, name):
    with pytest.raises(ValueError, match=rf"'{name}' .*at least 2.*got 1\)"):
        EAGLEData(root, **{name: 1})


@pytest.mark.parametrize('name', ['pressure_weight', 'noise'])
def test_bad_arguments(name):
    with pytest.raises(ValueError, match=rf"'{name}'.*-1"):
        UnsteadyFlow(Net(stay), **{name: -1.})


def test_networks_of_another_size(data, trainer):
    module = UnsteadyFlow(Net(stay), positions=False)
    with pytest.raises(ValueError, match=r"'in_channels' of 13 .*got 15"):
        trainer().test(module, data, verbose=False)
