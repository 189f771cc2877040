r"""The benchmarks of speed, with tiny sizes: that they run and that their
checks notice what is wrong.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed import block, positions
from benchmarks.speed.compare import compare
from benchmarks.speed.gpu import check, check_attention, messages
from benchmarks.speed.gpu.context import Context
from benchmarks.speed.report import Table
from benchmarks.speed.timing import Rounds

ROOT = Path(__file__).parents[2]


def run(name: str, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', f'benchmarks.speed.{name}', *args], cwd=ROOT,
        capture_output=True, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'})


@pytest.fixture
def context() -> Context:
    return Context(torch.device('cpu'), True, False, None, float('inf'))


def test_gpu_sections_on_the_cpu(tmp_path):
    out = tmp_path / 'gpu.md'
    done = run('gpu', '--device', 'cpu', '--tiny', '--out', str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    text = out.read_text()
    for title in ('Checks', 'Attention against its formula in float64',
                  'Trees and neighbours', 'Attention: forward',
                  'Attention: memory, forward and backward',
                  'Messages against their formula in float64',
                  'Message passing: forward and backward',
                  'The whole model: forward and backward'):
        assert f'\n## {title}\n' in text and f'\n## {title}\n' in done.stdout
    assert '- failed: nothing\n' in text and 'FAILED' not in text
    assert text.endswith(f'--out {out}\n```\n')


def test_gpu_sections_end_in_time():
    done = run('gpu', '--device', 'cpu', '--tiny', '--minutes', '0.1')
    assert ('no time for: check, tree, attention, messages, model'
            in done.stdout)
    assert done.returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason='There is a GPU')
def test_without_a_gpu():
    done = run('gpu')
    assert done.returncode == 2
    assert done.stdout.startswith('There is no CUDA GPU')
    assert done.stdout.count('\n') == 1


@pytest.mark.parametrize('factor', [1., 1.001])
def test_wrong_messages_are_noticed(context, monkeypatch, factor):
    right = messages.message_passing
    monkeypatch.setattr(messages, 'message_passing', lambda *args, **kwargs: (
        factor * right(*args, **kwargs)))
    table = messages.check(context)
    assert len(table.rows) == 18
    assert bool(context.failures) == (factor != 1.)


def test_message_passing(tmp_path):
    out = tmp_path / 'messages.md'
    done = run('message_passing', '--sizes', '[50]', '--neighbors', '[4]',
               '--channels', '[8]', '--memory_sizes', '[50]', '--seconds',
               '0', '--repeats', '1', '--out', str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    text = out.read_text()
    assert '\n| 50 | 16 | 64 |' in text and '\n| 10,000 | 4 | 64 |' in text
    assert '## Extra memory, forward and backward' in text


@pytest.mark.parametrize('factor', [1., 1.001])
def test_wrong_attention_is_noticed(context, monkeypatch, factor):
    def off(*args, **kwargs):
        return factor * right(*args, **kwargs)

    right = check_attention.ball_attention
    monkeypatch.setattr(check_attention, 'ball_attention', off)
    monkeypatch.setattr(check_attention, 'plan', lambda _: [
        (check_attention.Case(16, mask=True), ())])
    table = check_attention.run(context)
    assert len(table.rows) == 1
    assert len(context.failures) == (factor != 1.)


def test_wrong_results_are_noticed(context, monkeypatch, capsys):
    right, search = check.BallTree.build, check.knn_graph
    cloud = check.CLOUDS['clouds']

    def mirrored(pos, *args, **kwargs):
        return right(-pos, *args, **kwargs)

    def swapped(pos, *args, **kwargs):
        swapped.calls += 1
        return search(pos, *args, **kwargs).flip(0)[:, swapped.calls % 2:]

    swapped.calls = 0
    monkeypatch.setattr(check.BallTree, 'build', mirrored)
    with pytest.raises(RuntimeError, match='index of level 0'):
        check.check_trees(context, cloud)
    monkeypatch.setattr(check, 'knn_graph', swapped)
    assert check.check_neighbors(context, cloud) == (
        '1 edges differ by rounding')
    with context.guard('one'):
        raise ValueError('text')
    assert context.failures == ['one'] and 'text' in capsys.readouterr().out


def test_contender_left_out():
    table = Table('', [])
    found = compare(table, 'row', {'ours': int, 'peer': None, 'other': int},
                    Rounds(3, 0.), 2., ['peer', 'other'])
    assert set(found) == {'ours', 'other'}
    row = table.rows[0]
    assert len(row) == 9 and row[0] == 'row'
    assert row[2] == row[4] == row[6] == '' and row[5].endswith('x')


def test_model(tmp_path):
    out = tmp_path / 'model.md'
    done = run('model', '--sizes', '[300]', '--growth_sizes', '[600,1200]',
               '--check_size', '300', '--repeats', '1', '--seconds', '0.1',
               '--threads', '1', '--out', str(out))
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    for title in ('Forward and backward', 'Forward',
                  'Memory, forward and backward', 'Growth: forward of ours'):
        assert f'\n## {title}\n' in text
    assert 'two clouds of 300 points' in text and "authors'" not in (
        text.split('## ')[1].splitlines()[2])


def test_block(tmp_path):
    out = tmp_path / 'block.md'
    done = run('block', '--sizes', '[300]', '--channels', '[16]', '--threads',
               '[1]', '--repeats', '1', '--seconds', '0', '--out', str(out))
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert text.count('\n| 300, 16, 1 | ') == 2
    assert '\n| 300, 16 | ' in text


def test_wrong_block_is_noticed(monkeypatch):
    right = block.Modules.forward
    monkeypatch.setattr(torch, 'compile', lambda module, **_: module)
    assert block.check().startswith('checks: ')
    monkeypatch.setattr(block.Modules, 'forward', lambda *args, **kwargs: (
        1.001 * right(*args, **kwargs)))
    with pytest.raises(RuntimeError, match='disagree'):
        block.check()


def test_equivariant(tmp_path):
    out = tmp_path / 'equivariant.md'
    done = run('equivariant', '--sizes', '[200,300]', '--channels', '16',
               '--threads', '1', '--repeats', '1', '--seconds', '0', '--out',
               str(out))
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    for what in ('conv', 'model', 'tree'):
        assert f'\n| {what}, 300 | ' in text
    assert '\n| 300 | ' in text and 'turns what' in text


def test_gps(tmp_path):
    out = tmp_path / 'gps.md'
    done = run('gps', '--sizes', '[100,200,10000]', '--seconds', '0.01',
               '--longest', '0.5', '--memory', '0.6', '--threads', '1',
               '--out', str(out))
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    for size in ('100', '200', '10,000'):
        assert f'\n| {size} | ' in text
    assert '\n## How many nodes fit in 0.6 GB\n' in text
    rows = out.with_suffix('.csv').read_text().splitlines()
    assert rows[0] == 'layer,nodes,seconds,bytes'
    assert '"GPSConv, performer",100,' in '\n'.join(rows)


def test_memory_limit():
    r"""What does not fit is told from what fits."""
    found = [run('gps', 'try_memory', 'ours', str(nodes), str(10**9)).stdout
             for nodes in (1_000, 300_000)]
    assert [text.strip() for text in found] == ['1', '0']


def test_positions(tmp_path, monkeypatch):
    out = tmp_path / 'positions.md'
    done = run('positions', '--graphs', "['random tree']", '--transforms',
               "['AddLaplacianPos(8)']", '--threads', '1', '--out', str(out))
    assert done.returncode == 0, done.stderr
    row = next(line for line in out.read_text().splitlines()
               if line.startswith('| random tree | 100,000 | 99,999 | '))
    assert re.fullmatch(r'[\d.]+ s \|', row.split(' | ')[3])

    def wrong(self, data):
        data.pos = torch.randn(data.num_nodes, 8, dtype=torch.float64)
        return data

    monkeypatch.setattr(positions.AddLaplacianPos, 'forward', wrong)
    with pytest.raises(RuntimeError, match='not eigenvectors'):
        positions.check()
