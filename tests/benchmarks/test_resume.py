r"""A run that is killed and resumed is the run that never stopped."""

import csv

import pytest
import torch

HALOS = '''name: halos
data:
  class_path: benchmarks.experiments.data.HaloMockData
  init_args: {num_train: 3, num_val: 1, num_test: 1, num_halos: 100,
              grid_size: 16, repeats: 2, batch_size: 2, root: %s}
model:
  lr: 1e-2
  net:
    class_path: benchmarks.experiments.nets.Erwin
    init_args: {in_channels: 1, hidden_channels: [8, 16], out_channels: 3,
                depths: [1, 1], heads: [1, 2], ball_sizes: [16, 8], k: 4,
                mp_steps: 1, dropout: 0.1}
trainer:
  max_epochs: 4
  log_every_n_steps: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
'''
KILL = ['--trainer.callbacks+=tests.benchmarks.tiny.KillAt',
        '--trainer.callbacks.step=8']


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'halos.yaml'
    path.write_text(HALOS % (tmp_path / 'data'))
    return str(path)


def rows(folder):
    r"""What was logged at each step, but for the time it took."""
    with open(folder / 'metrics.csv') as file:
        found = list(csv.DictReader(file))
    for row in found:
        row.pop('train/seconds')
    return found


def load(folder, name='last'):
    return torch.load(folder / 'checkpoints' / f'{name}.ckpt')


def test_killed_and_resumed(cli, program, tmp_path):
    whole, killed, rest = (tmp_path / name / 'halos' / 'version_0'
                           for name in ('whole', 'killed', 'rest'))

    def root(folder):
        return f'--trainer.default_root_dir={folder.parents[1]}'

    cli('fit', root(whole))
    done = program('fit', root(killed), *KILL)
    assert done.returncode == -9, done.stderr
    last = killed / 'checkpoints' / 'last.ckpt'
    assert load(killed)['global_step'] == 6  # killed in the next epoch
    cli('fit', root(rest), f'--ckpt_path={last}')

    want = rows(whole)
    first, second = rows(killed), rows(rest)
    assert len(want) == 4 * (3 + 1) and len({r['train/loss'] for r in want
                                             if r['train/loss']}) == 12
    assert first[:8] == want[:8] and second == want[8:]
    assert len(first) > 8  # steps that were done twice
    # The resumed run has gone on to replace the checkpoints of the first.
    a, b = load(whole), load(killed)
    assert not (rest / 'checkpoints').exists()
    assert a['global_step'] == b['global_step'] == 12
    for key, value in a['state_dict'].items():
        assert torch.equal(value, b['state_dict'][key]), key
    a, b = load(whole, 'best'), load(killed, 'best')
    assert a['epoch'] == b['epoch']
