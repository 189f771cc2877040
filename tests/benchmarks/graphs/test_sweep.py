import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.graphs.sweep import NETS, Job, Result, accuracy_table, train

ROOT = Path(__file__).parents[3]


def run(task: str, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'benchmarks.graphs.sweep', task, *args],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'})


@pytest.mark.parametrize('task, size, count', [
    ('ring_transfer', '--sizes=[8]', '--max_steps=2'),
    ('tree_neighbors_match', '--depths=[2]', '--max_steps=[2]'),
    ('sbm', "--names=['CLUSTER']", '--max_epochs=1'),
])
def test_sweep(tmp_path, task, size, count):
    out = tmp_path / 'table.md'
    done = run(task, size, count, '--seeds=[0]', '--processes=2',
               '--budget=8000', f'--out={out}',
               "--nets=['GCN','GCN/Erwin hybrid']")
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert 'GCN/Erwin hybrid' in text and f'--out={out}' in text
    with out.with_suffix('.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['net'] for row in rows] == ['GCN', 'GCN/Erwin hybrid']
    assert all(0 <= float(row['score']) <= 1 for row in rows)


def make_job(**kwargs):
    return Job(**{'task': 'ring_transfer', 'net': 'GCN', 'size': 4,
                  'seed': 0, 'num_layers': 3, 'budget': 6_000,
                  'ball_size': 8, 'lr': 3e-3, 'batch_size': 32,
                  'max_steps': 400, **kwargs})


def test_training_stops_when_all_is_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(make_job(solved=0.999))
    assert result.steps % 100 == 0 and result.steps < 400
    assert result.score == 1


def test_table():
    results = [Result(make_job(net=net, size=size, seed=seed),
                      0.5 + 0.1 * seed, 0., 10 * size, 1., 100, 1)
               for size in (4, 8) for net in NETS for seed in (0, 1)]
    table = accuracy_table(results, 'nodes', '', '')
    assert list(table.columns) == ['nodes', *NETS]
    assert table.rows[0] == ['4', *['55.0 ± 7.1'] * len(NETS)]
    assert table.rows[2] == ['parameters', *['40 to 80'] * len(NETS)]
    assert table.rows[3] == ['ms/step', *['10'] * len(NETS)]
