r"""Networks learn how air goes on, from the command line, and are drawn."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.experiments.cli import main
from benchmarks.experiments.data import MovingJetData
from benchmarks.experiments.flow_figures import draw_vorticity, vorticity
from benchmarks.experiments.rollouts import rollouts
from benchmarks.experiments.unsteady_flow import UnsteadyFlow
from tests.datasets.eagle_writer import write_all

CONFIGS = Path(__file__).parents[2] / 'benchmarks' / 'configs'
SMALL = dict(num_train=2, num_val=1, num_test=2, num_steps=8, interval=8,
             shape=(32, 32), window=4, horizon=6, start=2)
NETS = 'mpnn', 'hybrid', 'erwin', 'meshgraphnet', 'transolver'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp('jets'))


@pytest.fixture(scope='module')
def options(root):
    # Tuples as the command line reads them.
    return [f'root={root}', *(f'{key}={list(value)}' if key == 'shape' else
                              f'{key}={value}'
                              for key, value in SMALL.items())]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', sys.argv[:1])

    def call(command, config, *args):
        return main([command, f'--config={CONFIGS}/{config}.yaml',
                     f'--trainer.default_root_dir={tmp_path}',
                     '--trainer.accelerator=cpu', '--trainer.max_steps=2',
                     '--trainer.max_epochs=-1',
                     '--trainer.log_every_n_steps=1',
                     '--trainer.enable_progress_bar=false',
                     '--trainer.enable_model_summary=false', *args])

    return call


def test_data(root):
    data = MovingJetData(root, **SMALL)
    data.prepare_data()
    data.setup()
    assert [len(data.clouds[split]) for split in ('train', 'val', 'test')] == [
        2, 1, 2]
    assert data.clouds['test'][0].y.size(1) == 6
    assert data.mean.shape == data.scale.shape == (4, )
    again = MovingJetData(root, **SMALL, seed=1)
    again.setup()  # units are those of the data alone
    assert torch.equal(data.scale, again.scale)
    y = torch.cat([window.y.flatten(0, 1) for window in (
        data.clouds['train'][i, 0] for i in range(2))])
    assert ((y.mean(0) - data.mean).abs() < data.scale).all()
    assert (y.std(0) / data.scale > 0.2).all()
    with pytest.raises(ValueError, match=r'sim\.npz.*steps.*got 8 in all'):
        MovingJetData(root, **{**SMALL, 'horizon': 7}).setup()


@pytest.mark.parametrize('net', NETS)
def test_train_and_test(run, options, tmp_path, net):
    args = [f'--model.net={CONFIGS}/nets/{net}.yaml',
            *(f'--data.{option}' for option in options),
            '--data.batch_size=1']
    fit = run('fit', 'moving_jet', *args)
    assert fit.trainer.global_step == 2
    folder = tmp_path / 'moving_jet' / 'version_0' / 'checkpoints'
    assert {path.name for path in folder.iterdir()} == {'best.ckpt',
                                                        'last.ckpt'}
    path = folder / 'last.ckpt'
    module = UnsteadyFlow.load_from_checkpoint(path)
    for key, value in fit.model.state_dict().items():
        assert torch.equal(module.state_dict()[key], value)
    assert module.scale.shape == (4, ) and module.pos_mean.shape == (2, )
    if net == 'hybrid':
        check_test(run, args, tmp_path, path)
        check_pictures(options, tmp_path, path)


def check_test(run, args, tmp_path, path):
    test = run('test', 'moving_jet', f'--ckpt_path={path}', *args)
    for name in ('velocity_1', 'velocity_5', 'pressure_5'):
        assert test.trainer.callback_metrics[f'test/{name}'] > 0
    with (tmp_path / 'moving_jet/version_1/rollout.csv').open() as file:
        assert len(list(csv.DictReader(file))) == 5
    more = run('fit', 'moving_jet', f'--ckpt_path={path}', *args,
               '--trainer.max_steps=3')
    assert more.trainer.global_step == 3  # it goes on


def check_pictures(options, tmp_path, path):
    rollouts({'hybrid': path}, steps=(1, 5), out=tmp_path, simulation=1,
             data=tuple(options))
    for name in ('vorticity', 'errors'):
        with Image.open(tmp_path / f'{name}.png') as picture:
            colors = picture.convert('RGB').getcolors(2**24)
            assert picture.width > 500 and len(colors) > 100


def test_train_on_eagle(run, tmp_path):
    write_all(tmp_path)
    fit = run('fit', 'eagle_erwin', f'--data.root={tmp_path}',
              '--data.start=3', '--data.horizon=8', '--data.num_workers=0',
              '--model.net.depths=[1,1,1,1,1]')
    assert fit.trainer.global_step == 2
    assert fit.model.net.mesh and not fit.model.positions


def test_vorticity():
    torch.manual_seed(0)
    pos = torch.rand(9, 2)
    face = torch.tensor([[0, 3, 6, 1], [1, 4, 7, 1], [2, 5, 8, 2]])
    # A turn, and what has no vorticity: a shift, a strain, a sink.
    turn = 3. * torch.stack([-pos[:, 1], pos[:, 0]], dim=1)
    other = 2. + torch.stack([pos[:, 1], pos[:, 0]], dim=1) - 5. * pos
    for faces in (face, face.flip(0)):  # whichever way they run
        got = vorticity(pos, turn + other, faces)
        assert torch.allclose(got[:3], torch.full((3, ), 6.), atol=1e-3)
        assert got[3] == 0  # no area
    shear = torch.stack([4. * pos[:, 1], 0. * pos[:, 1]], dim=1)
    assert torch.allclose(vorticity(pos, shear, face)[:3],
                          torch.full((3, ), -4.), atol=1e-3)


def test_pictures_show_steps_and_flows(root):
    data = MovingJetData(root, **SMALL)
    data.setup()
    window = data.clouds['test'][0]
    figure = draw_vorticity(window, {'a': window.y, 'b': -window.y}, (0, 5))
    *panels, _ = figure.axes
    assert len(panels) == 4
    values = [ax.collections[0].get_array() for ax in panels]
    assert (values[0] == -values[2]).all() and (values[1] != values[0]).any()
    assert [ax.get_title() for ax in panels[:2]] == ['step 0', 'step 5']
