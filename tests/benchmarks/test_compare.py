r"""Networks side by side, with little data and time."""

import json

import pytest

from benchmarks.experiments.compare import (
    Comparison,
    Outcome,
    compare,
    make_table,
)


@pytest.fixture
def small(tmp_path):
    return (f'root={tmp_path}', 'num_halos=200', 'box_size=200',
            'num_train=2', 'num_val=1', 'num_test=1')


def test_compare(small, tmp_path):
    out, report = tmp_path / 'out', tmp_path / 'report.md'
    net = "'four near'=mpnn --model.net.init_args.k=4"

    def run():
        compare('halo_mock', (Comparison('One', (net, ), note='A note.'), ),
                minutes=0.005, metrics=('r2', ), out=out, data=small,
                report=report)
        text = report.read_text()
        assert 'one seed. A note.' in text
        row = next(line for line in text.splitlines()
                   if line.startswith('| four near |'))
        return [float(cell.replace(',', '')) for cell in row.split('|')[2:-1]]

    r2, parameters, steps, seconds, memory = run()
    assert r2 < 1 and parameters > 10_000 and steps >= 1
    assert seconds > 0 and 1 < memory < 2000

    # What is there is not trained again, unless it was asked for otherwise.
    path = out / 'halo_mock' / 'seed_0' / 'mpnn_k_4.json'
    known = json.loads(path.read_text())
    known['metrics']['r2'] = 0.5
    path.write_text(json.dumps(known))
    assert run()[0] == 0.5
    known['asked'][2] = 1.
    path.write_text(json.dumps(known))
    assert run()[0] == pytest.approx(r2, abs=0.05) and r2 < 0.4


def test_table():
    nets = 'mpnn', "'by another name'=mpnn", 'erwin --some.depths=[0,1]'
    comparison = Comparison('All', nets, (0, 1))
    outcomes = {(net, seed): Outcome([], net, {'r2': 0.5 + seed / 4}, 7,
                                     100 + seed, 0.5, 2**20 * 3)
                for net in ('mpnn', 'erwin \'--some.depths=[0,1]\'')
                for seed in comparison.seeds}
    table = make_table(comparison, ['r2'], 2., outcomes)
    assert '2 seeds' in table.note and table.note.startswith('2 minutes')
    names = 'mpnn', 'by another name', 'erwin \'--some.depths=[0,1]\''
    assert table.rows == [[name, '0.6250 ± 0.1768', '7', '100', '0.500', '3']
                          for name in names]


def test_failed_training_is_reported(small, tmp_path):
    tables = Comparison('One', ('mpnn --model.net.init_args.k=-1', )),
    with pytest.raises(RuntimeError, match='log'):
        compare('halo_mock', tables, minutes=0.005, out=tmp_path / 'out',
                data=small)
