import sys
from pathlib import Path
from pydoc import locate

import pytest
import torch
import yaml
from torch_geometric.data import Batch, Data

from benchmarks.experiments.cli import main
from benchmarks.experiments.data import (
    BluffBodiesData,
    FieldClouds,
    PDEBenchmarkData,
    PerforatedPlatesData,
    ShapeNetCarData,
)
from benchmarks.experiments.data.field_clouds import hold_out
from benchmarks.experiments.regression import Regression
from benchmarks.experiments.relative_l2 import RelativeL2
from tests.benchmarks.tiny import TinyNet
from tests.datasets.car_writer import write_car
from tests.datasets.pde_writer import NAMES, write
from torch_geometric_erwin.datasets import (
    BodyShape,
    PDEBenchmark,
    potential_flow,
)

CONFIGS = Path(__file__).parents[3] / 'benchmarks' / 'configs'
BODIES = dict(num_train=2, num_val=1, num_test=1, num_points=200,
              num_bodies=1)
PLATES = dict(num_train=2, num_val=1, num_test=1, num_points=200,
              num_holes=1)
SAMPLES = dict(num_train=3, num_val=1, num_test=1)


class Given(FieldClouds):
    def __init__(self, train: list[Data], **kwargs) -> None:
        super().__init__(**kwargs)
        self.given = {'train': train, 'val': train[:1], 'test': train[1:]}

    def load_fields(self) -> dict[str, list[Data]]:
        return self.given


def cloud(**kwargs) -> Data:
    return Data(**{'pos': torch.rand(8, 3) + 5, 'y': 3 * torch.randn(8, 2) - 7,
                   'normal': torch.randn(8, 3), **kwargs})


def clouds(**kwargs) -> list[Data]:
    torch.manual_seed(0)
    return [cloud(**kwargs) for _ in range(3)]


class Targets(torch.nn.Module):
    r"""Knows the targets, and returns them the way networks should."""
    def __init__(self, mean, scale):
        super().__init__()
        self.mean, self.scale = mean, scale
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, data):
        return (data.y - self.mean) / self.scale + self.weight


def test_fields_are_standardized(trainer):
    data = Given(clouds(), batch_size=3)
    data.setup()
    y = torch.cat([cloud.y for cloud in data.clouds['train']])
    assert torch.allclose(data.mean, y.mean(dim=0))
    assert torch.allclose(data.scale, y.std(dim=0, correction=0))
    assert (data.num_features, data.out_channels) == (6, 2)
    module = Regression(Targets(data.mean, data.scale))
    got, = trainer().test(module, data, verbose=False)
    assert got['test/rmse'] < 1e-5 and got['test/rel_l2'] < 1e-6
    assert got['test/r2'] == pytest.approx(1.)
    batch = Batch.from_data_list(data.clouds['train'])
    assert torch.allclose(module(batch), y, atol=1e-5)
    out = module.net(batch)
    assert torch.allclose(out.mean(dim=0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(out.std(dim=0, correction=0), torch.ones(2))


def test_features():
    given = clouds()
    pos = torch.cat([cloud.pos for cloud in given])
    normal = torch.cat([cloud.normal for cloud in given])
    want = (pos - pos.mean(dim=0)) / pos.std(dim=0, correction=0)

    def features(given, **kwargs):
        data = Given(given, **kwargs)
        data.setup()
        return torch.cat([cloud.x for cloud in data.clouds['train']])

    assert torch.allclose(features(given), torch.cat([want, normal], 1),
                          atol=1e-5)
    assert torch.equal(features(given, positions=False), torch.ones(24, 1))
    for cloud in given:
        cloud.x = cloud.pos[:, :1]
    assert torch.allclose(features(given, positions=False), want[:, :1],
                          atol=1e-5)
    assert features(given).shape == (24, 7)


def test_clouds_are_not_turned(trainer):
    data = Given(clouds(), batch_size=3)
    seen = []

    class Spy(Regression):
        def on_train_batch_start(self, batch, batch_idx):
            super().on_train_batch_start(batch, batch_idx)
            seen.extend(batch.to_data_list())

    trainer().fit(Spy(TinyNet(6, 2)), data)
    given = {str(cloud.pos): cloud for cloud in data.given['train']}
    assert len(seen) == 3
    for cloud in seen:
        assert torch.equal(cloud.y, given[str(cloud.pos)].y)


@pytest.mark.parametrize('positions', [True, False])
def test_mirrored_clouds_are_those_of_mirrored_positions(positions):
    data = Given(clouds(x=torch.rand(8, 2)), positions=positions)
    data.mirror_axis = 1
    data.setup()
    batch = Batch.from_data_list(data.clouds['train'])
    turned = data.mirror(batch.clone(), torch.ones(24).index_fill(
        0, torch.arange(8, 16), -1.))
    flip = torch.tensor([1., -1., 1.])
    for i, given in enumerate(data.given['train']):
        if i == 1:
            given.pos, given.normal = flip * given.pos, flip * given.normal
        assert torch.equal(turned[i].pos, given.pos)
        assert torch.equal(turned[i].normal, given.normal)
        assert torch.equal(turned[i].y, given.y)
        assert torch.allclose(turned[i].x, data.features(given), atol=1e-5)


def test_every_other_cloud_is_mirrored():
    data = BluffBodiesData(augment=True)
    data.load_fields = lambda: {'train': clouds() * 20, 'val': clouds(),
                                'test': clouds()}
    data.setup()
    batch = Batch.from_data_list(data.clouds['train'])
    torch.manual_seed(0)
    mirrored = data.change(batch.clone()).pos[::8, 1] < 0
    assert batch.pos.min() > 0 and 15 < mirrored.sum() < 45


def test_pressure_on_mirrored_bodies():
    generator = torch.Generator().manual_seed(0)
    vertices, quads = BodyShape.draw(generator).mesh(400)
    wind = torch.tensor([1., 0., 0.], dtype=torch.double)
    body = torch.zeros(len(quads), dtype=torch.long)
    want = potential_flow(vertices, quads, body, wind, True)
    flip = torch.tensor([1., -1., 1.], dtype=torch.double)
    got = potential_flow(flip * vertices, quads.flip(1), body, wind, True)
    assert torch.allclose(got.pressure, want.pressure, atol=1e-9)
    assert torch.allclose(got.panels.normal, flip * want.panels.normal)


def test_relative_l2():
    target = torch.tensor([[3., 0.], [0., 4.], [2., 0.]])
    error = torch.tensor([[0., 1.], [2., 2.], [0., 1.]])
    metric = RelativeL2()
    metric.update(target + error, target, torch.tensor([0, 0, 1]))
    assert metric.compute().item() == pytest.approx((3 / 5 + 1 / 2) / 2)
    metric.update(target[2:], target[2:], torch.tensor([0]))
    assert metric.compute().item() == pytest.approx((3 / 5 + 1 / 2) / 3)


def test_bluff_bodies(tmp_path):
    data = BluffBodiesData(str(tmp_path), **BODIES)
    data.setup()
    cloud = data.clouds['train'][0]
    assert [len(data.clouds[key]) for key in ('train', 'val', 'test')] == [
        2, 1, 1]
    assert cloud.num_edges == 4 * cloud.num_nodes
    assert cloud.x.shape == (cloud.num_nodes, 6)
    assert torch.allclose(cloud.x[:, 3:].norm(dim=1), torch.tensor(1.))


@pytest.fixture(scope='module')
def bodies(tmp_path_factory):
    data = BluffBodiesData(str(tmp_path_factory.mktemp('bodies')), **BODIES)
    data.setup()
    batch = Batch.from_data_list(data.clouds['train'])
    batch.y = (batch.y - data.mean) / data.scale
    return batch


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('nets/*.yaml')),
                         ids=lambda path: path.stem)
def test_networks_learn_from_bluff_bodies(path, bodies):
    torch.manual_seed(0)
    config = yaml.safe_load(path.read_text())
    options = config['init_args'] | {'in_channels': 6, 'out_channels': 1}
    if 'resolution' in options:
        options['resolution'] = 16
    net = locate(config['class_path'])(**options)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (net(bodies) - bodies.y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all()
               for p in net.parameters())


@pytest.fixture(scope='module')
def plates(tmp_path_factory):
    return str(tmp_path_factory.mktemp('plates'))


def test_plates(plates):
    data = PerforatedPlatesData(plates, **PLATES, augment=True)
    data.setup()
    batch = Batch.from_data_list(data.clouds['train'])
    assert sorted(batch[0].keys()) == ['edge_index', 'face', 'pos', 'x',
                                        'y']
    mirrored = data.mirror(batch.clone(), -torch.ones(400))
    want = torch.stack([1 - batch.pos[:, 0], batch.pos[:, 1]], dim=1)
    assert torch.allclose(mirrored.pos, want)
    mean, std = data.units['pos']
    assert torch.allclose(mirrored.x, (want - mean) / std, atol=1e-5)


@pytest.fixture
def cars(tmp_path):
    for i in range(9):
        write_car(tmp_path / f'param{i}/car', i)
    return str(tmp_path)


def test_cars(cars):
    data = ShapeNetCarData(cars, num_val=2)
    data.setup()
    assert [len(data.clouds[key]) for key in ('train', 'val', 'test')] == [
        5, 2, 2]
    assert data.mean.item() == pytest.approx(-36.3099)
    cloud = data.clouds['train'][0]
    assert sorted(cloud.keys()) == ['edge_index', 'face', 'pos', 'x', 'y']
    mean, std = data.known_units()['pos']
    assert torch.equal(cloud.x, (cloud.pos - mean) / std)


@pytest.mark.parametrize('name', NAMES)
def test_pde_benchmarks(tmp_path, name):
    write(tmp_path, name)
    data = PDEBenchmarkData(str(tmp_path), name, **SAMPLES)
    data.setup()
    steps = 20 if name == 'plasticity' else 1
    assert [len(data.clouds[key]) for key in ('train', 'val', 'test')] == [
        2 * steps, steps, steps]
    mean, std = PDEBenchmark.normalization(name)['y']
    cloud, other = data.clouds['train'][1], data.clouds['val'][0]
    assert data.mean.shape == data.scale.shape == (cloud.y.size(1), )
    assert data.mean.eq(mean).all() and data.scale.eq(std).all()
    assert cloud.x.size(1) == (4 if name == 'plasticity' else 2)
    if name != 'elasticity':
        assert cloud.edge_index.data_ptr() == other.edge_index.data_ptr()
    want = PDEBenchmark(tmp_path, name, num_train=3, num_test=1)[1]
    assert torch.equal(cloud.pos, want.pos) and torch.equal(cloud.y, want.y)


def test_plasticity_knows_the_die_and_the_time(tmp_path):
    write(tmp_path, 'plasticity')
    data = PDEBenchmarkData(str(tmp_path), 'plasticity', **SAMPLES)
    data.setup()
    want = PDEBenchmark(tmp_path, 'plasticity', num_train=3, num_test=1)
    x = torch.stack([cloud.x for cloud in data.clouds['train'][:20]])
    assert torch.allclose(x[3, :, 2:3], (want[3].x - 19.6351) / 2.3652)
    times = x[:, 0, 3]
    assert torch.equal(x[..., 3], times[:, None].expand(20, 3131))
    assert torch.allclose(times.diff(), times[1] - times[0])
    assert times.std(correction=0).item() == pytest.approx(1.)
    assert times.mean().item() == pytest.approx(0., abs=1e-6)


def run(command, config, tmp_path, *options):
    return main([command, '--config', str(CONFIGS / config),
                 f'--trainer.default_root_dir={tmp_path}/runs',
                 '--trainer.max_epochs=1', '--trainer.accelerator=cpu',
                 '--trainer.log_every_n_steps=1',
                 '--trainer.limit_train_batches=2',
                 '--trainer.limit_val_batches=1',
                 '--trainer.limit_test_batches=1',
                 '--trainer.enable_progress_bar=false',
                 '--trainer.enable_model_summary=false',
                 '--data.init_args.batch_size=1', *options])


def check_fit_and_test(config, tmp_path, monkeypatch, *options):
    monkeypatch.setattr(sys, 'argv', sys.argv[:1])
    fit = run('fit', config, tmp_path, *options)
    assert fit.trainer.global_step == 2
    path, = tmp_path.glob('runs/*/version_0/checkpoints/last.ckpt')
    test = run('test', config, tmp_path, f'--ckpt_path={path}', *options)
    for name in ('r2', 'rmse', 'rel_l2'):
        assert test.trainer.callback_metrics[f'test/{name}'].isfinite()
    module = Regression.load_from_checkpoint(path)
    for key, value in fit.model.state_dict().items():
        assert torch.equal(module.state_dict()[key], value)
    assert module.scale.shape == (fit.datamodule.out_channels, )


def test_train_on_bluff_bodies(tmp_path, monkeypatch):
    options = [f'--data.init_args.{key}={value}'
               for key, value in BODIES.items()]
    check_fit_and_test('bluff_bodies.yaml', tmp_path, monkeypatch,
                       f'--data.init_args.root={tmp_path}', *options)


@pytest.mark.parametrize('net', ['mspt', 'meshgraphnet', 'fno'])
def test_train_another_network_on_plates(plates, tmp_path, monkeypatch, net):
    options = [f'--data.init_args.{key}={value}'
               for key, value in PLATES.items()]
    check_fit_and_test('plates.yaml', tmp_path, monkeypatch,
                       f'--data.init_args.root={plates}',
                       f'--model.net={CONFIGS}/nets/{net}.yaml', *options)


def test_train_on_cars(cars, tmp_path, monkeypatch):
    check_fit_and_test('shapenet_car_erwin.yaml', tmp_path, monkeypatch,
                       f'--data.init_args.root={cars}',
                       '--data.init_args.num_val=2',
                       '--model.net.init_args.depths=[1]')


@pytest.mark.parametrize('name', NAMES)
def test_train_on_pde_benchmarks(tmp_path, monkeypatch, name):
    write(tmp_path, name)
    options = [f'--data.init_args.{key}={value}'
               for key, value in SAMPLES.items()]
    check_fit_and_test(f'{name}_erwin.yaml', tmp_path, monkeypatch,
                       f'--data.init_args.root={tmp_path}',
                       '--model.net.init_args.depths=[1]', *options)


def test_checkpoints_from_before_there_were_fields(trainer):
    module = Regression(TinyNet())
    state = {key: value for key, value in module.state_dict().items()
             if key != 'mean'}
    checkpoint = {'state_dict': {**state, 'scale': torch.tensor(3.)}}
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint['state_dict'])
    assert module.scale == 3 and module.mean == 0


@pytest.mark.parametrize('changes, match', [
    ({'y': torch.ones(8, 2)}, r"channel of 'y' to vary .*\[0\.0, 0\.0\]"),
    ({'y': torch.rand(8)}, r"'y' of cloud 0 .*\[8, 1\] \(got \[8\]\)"),
    ({'y': torch.rand(7, 2)}, r"'y' of cloud 0 .*\[8, 2\] \(got \[7, 2\]\)"),
])
def test_bad_fields(changes, match):
    with pytest.raises(ValueError, match=match):
        Given(clouds(**changes)).setup()


def test_fields_of_other_sizes():
    given = clouds()
    given[2].y = given[2].y[:, :1]
    data = Given(given)
    data.units = {}
    data.known_units = lambda: {'y': (torch.zeros(2), torch.ones(2))}
    with pytest.raises(ValueError, match=r"'y' of cloud 2 .*\[8, 2\]"):
        data.setup()


@pytest.mark.parametrize('net, conservative, match', [
    (TinyNet(6, 3), False, r"'out_channels' of 2 .*\(got 3\)"),
    (TinyNet(5, 2), False, r"'in_channels' of 6 .*\(got 5\)"),
    (TinyNet(6, 1), True, r"'conservative' to be False .*\(got True\)"),
])
def test_networks_of_another_size(trainer, net, conservative, match):
    with pytest.raises(ValueError, match=match):
        trainer().fit(Regression(net, conservative), Given(clouds()))


@pytest.mark.parametrize('num_val', [0, -1, 3, 4])
def test_bad_hold_out(num_val):
    with pytest.raises(ValueError, match=rf"'num_val'.* 3 .*got {num_val}"):
        hold_out(clouds(), num_val)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"'augment' to be False .*True"):
        ShapeNetCarData(augment=True)
    with pytest.raises(ValueError, match=r"'name' to be one of .*'wing'"):
        PDEBenchmarkData(name='wing')
    with pytest.raises(FileNotFoundError, match='NACA_Cylinder'):
        PDEBenchmarkData(str(tmp_path)).setup()
    with pytest.raises(FileNotFoundError, match='param0'):
        ShapeNetCarData(str(tmp_path)).setup()
