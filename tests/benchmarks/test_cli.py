import csv
import re
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from benchmarks.experiments.cli import main
from benchmarks.experiments.data import MDTrajectoryData
from benchmarks.experiments.regression import Regression
from benchmarks.experiments.unsteady_flow import UnsteadyFlow

CONFIGS = Path(__file__).parents[2] / 'benchmarks' / 'configs'
ENERGY = ('--model.conservative=true', '--model.net.out_channels=1')


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.yaml')),
                         ids=lambda path: path.stem)
def test_configs(path, tmp_path):
    if path.stem.endswith(('fno', 'gino')):
        pytest.importorskip('neuralop')
    cli = main(['--config', str(path),
                f'--trainer.default_root_dir={tmp_path}'], run=False)
    assert cli.config['name'] == path.stem
    energy = getattr(cli.model, 'conservative', False)
    assert energy == path.stem.endswith('energy')
    is_md = path.stem.startswith('md')
    assert isinstance(cli.datamodule, MDTrajectoryData) == is_md
    unsteady = path.stem.startswith(('eagle', 'moving_jet'))
    assert isinstance(cli.model, UnsteadyFlow) == unsteady
    assert not any(tmp_path.iterdir())


def test_run_folder(cli, tmp_path):
    run = cli('fit')
    folder = tmp_path / 'tiny' / 'version_0'
    assert {'checkpoints', 'config.yaml', 'hparams.yaml',
            'metrics.csv'} < {path.name for path in folder.iterdir()}
    assert {path.name for path in (folder / 'checkpoints').iterdir()} == {
        'best.ckpt', 'last.ckpt'}
    assert [type(x) for x in run.trainer.loggers] == [CSVLogger,
                                                      TensorBoardLogger]
    assert {x.log_dir for x in run.trainer.loggers} == {str(folder)}
    again = yaml.safe_load((folder / 'config.yaml').read_text())
    assert again['seed_everything'] == 0 and again['name'] == 'tiny'
    cli('fit')
    assert (folder.parent / 'version_1' / 'metrics.csv').exists()


def test_checkpoints_are_of_the_best_and_the_last_epoch(cli, tmp_path):
    run = cli('fit', '--model.lr=0.3', '--trainer.max_epochs=5')
    folder = tmp_path / 'tiny' / 'version_0'
    text = (folder / 'metrics.csv').read_text().splitlines()
    column = text[0].split(',').index('val/r2')
    scores = [line.split(',')[column] for line in text[1:]]
    scores = [float(score) for score in scores if score]
    best = torch.load(folder / 'checkpoints' / 'best.ckpt')
    assert best['epoch'] == scores.index(max(scores))
    assert torch.load(folder / 'checkpoints' / 'last.ckpt')['epoch'] == 4
    assert len(scores) == 5 and run.trainer.current_epoch == 5


@pytest.mark.parametrize('options', [(), ENERGY])
def test_test_and_load(cli, tmp_path, options):
    run = cli('fit', *options)
    want = run.trainer.callback_metrics['val/rmse']
    path = tmp_path / 'tiny' / 'version_0' / 'checkpoints' / 'last.ckpt'
    # The checkpoint knows the options of the model.
    run = cli('validate', f'--ckpt_path={path}')
    assert run.trainer.callback_metrics['val/rmse'] == want
    run = cli('test', f'--ckpt_path={path}')
    assert run.trainer.callback_metrics['test/r2'].isfinite()
    module = Regression.load_from_checkpoint(path)
    assert module.conservative == bool(options)
    assert torch.equal(module.scale, run.model.scale) and module.scale != 1
    for key, value in run.model.net.state_dict().items():
        assert torch.equal(module.net.state_dict()[key], value)


def test_seed(cli):
    losses = [cli('fit', *args).trainer.callback_metrics['val/loss'].item()
              for args in ((), (), ('--seed_everything=1', ),
                           ('--data.seed=1', ), ('--data.augment=false', ))]
    assert losses[0] == losses[1] and len(set(losses)) == 4


@pytest.mark.parametrize('options', [(), ENERGY])
def test_mixed_precision(cli, options):
    run = cli('fit', '--trainer.precision=bf16-mixed', *options)
    assert run.trainer.global_step == 6
    assert run.trainer.callback_metrics['val/r2'].isfinite()
    assert run.trainer.callback_metrics['train/loss'].dtype == torch.float


def test_processes_split_the_batch(cli, program, tmp_path):
    r"""Two processes with one cloud each are one with two."""
    options = ['--data.augment=false', '--trainer.max_epochs=1']
    one = cli('fit', *options)
    # In a fresh process, as autograd cannot be forked after it has run.
    done = program('fit', *options, '--data.batch_size=1', '--name=two',
                   f'--trainer.default_root_dir={tmp_path}',
                   '--trainer.devices=2', '--trainer.strategy=ddp_fork')
    assert done.returncode == 0, done.stderr
    folder = tmp_path / 'two' / 'version_0'
    two = torch.load(folder / 'checkpoints' / 'last.ckpt')
    assert one.trainer.global_step == two['global_step'] == 3
    for key, value in one.model.state_dict().items():
        assert torch.allclose(two['state_dict'][key], value, atol=1e-6)
    with open(folder / 'metrics.csv') as file:
        row = list(csv.DictReader(file))[-1]
    for key in ('val/r2', 'val/rmse', 'val/rel_l2', 'val/loss'):
        assert float(row[key]) == pytest.approx(
            one.trainer.callback_metrics[key].item(), rel=1e-4)


def test_time_budget_from_the_command_line(cli):
    name = 'benchmarks.experiments.time_budget.TimeBudget'
    run = cli('fit', f'--trainer.callbacks+={name}',
              '--trainer.callbacks.minutes=0.02')
    budget = next(c for c in run.trainer.callbacks
                  if type(c).__name__ == 'TimeBudget')
    assert budget.seconds >= 1.2 and run.trainer.global_step > 6


def test_print_config(cli, capsys):
    with pytest.raises(SystemExit):
        cli('fit', '--print_config')
    text = capsys.readouterr().out
    model = yaml.safe_load(text)['model']
    assert model['class_path'].endswith('.Regression')
    assert model['init_args']['warmup'] == 0.05
    assert re.search(r'default_root_dir: \S+', text)


@pytest.mark.parametrize('options, error, match', [
    (['--data.topology=nope.tpr'], FileNotFoundError, r"'topology'.*nope"),
    (['--data.name=adk', '--data.periodic=false'], ValueError,
     'got no force'),
    (['--data.name=cobrotoxin', '--data.select=name CA'], ValueError,
     r"'in_channels' of 2 for these data \(got 7\)"),
])
def test_bad_data(cli, tmp_path, options, error, match):
    options = ['--data=benchmarks.experiments.data.MDTrajectoryData',
               f'--data.root={tmp_path}/data', '--model.net.in_channels=7',
               *options]
    with pytest.raises(error, match=match):
        cli('fit', *options)
    assert not [*tmp_path.glob('tiny/*/metrics.csv')]


def test_missing_checkpoint(cli, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'ckpt_path'.*nope\.ckpt"):
        cli('fit', f'--ckpt_path={tmp_path}/nope.ckpt')
    assert not (tmp_path / 'tiny').exists()
