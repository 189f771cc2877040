r"""The main job, with little data and time."""

import json

import pytest
import torch
from PIL import Image
from torch_geometric.data import Data

from benchmarks.experiments import figures
from benchmarks.experiments.data_sizes import data_sizes
from benchmarks.experiments.demo import NETS, demo, spell
from benchmarks.experiments.runs import NAMES

PICTURES = ['predictions', 'slice', 'curves', 'ball_tree', 'receptive_field']


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    return (f'root={root}', 'num_halos=400', 'box_size=200', 'num_train=4',
            'num_val=2', 'num_test=2')


def test_demo(small, tmp_path):
    out, report = tmp_path / 'demo', tmp_path / 'report.md'
    demo(minutes=0.05, out=out, data=small, report=report)

    zero, theory, *nets = json.loads((out / 'results.json').read_text())
    assert zero['name'] == 'zero' and -0.05 < zero['r2'] <= 0
    assert theory['r2'] > 0.05 and theory['rmse'] < zero['rmse']
    names = [NAMES.get(net, net) for net in NETS]
    assert [result['name'] for result in nets] == names
    for result in nets:
        assert result['steps'] > 0 and result['parameters'] > 10_000
        # The same time for all, to a step.
        used = result['steps'] * result['seconds']
        assert 3 <= used < 3 + 10 * result['seconds']
    text = report.read_text()
    assert 'message passing' in text and 'km/s' in text
    for name in PICTURES:
        with Image.open(out / f'{name}.png') as picture:
            colors = picture.convert('RGB').getcolors(2**24)
            assert picture.width > 500 and len(colors) > 100


def test_options_of_a_net_and_data_sizes(small, tmp_path):
    report = tmp_path / 'report.md'
    data = tuple(option for option in small if 'num_train' not in option)
    data_sizes(('hybrid --model.net.init_args.k=4', ), sizes=(2, 4),
               minutes=0.02, out=tmp_path, data=data, report=report)
    row, = (line.split('|')[1:-1] for line in report.read_text().splitlines()
            if line.startswith('| hybrid, k=4 |'))
    assert len(row) == 3 and all(float(score) < 1 for score in row[1:])
    assert (tmp_path / 'data_sizes.png').stat().st_size > 10_000


def test_failed_training_is_reported(tmp_path):
    with pytest.raises(ValueError, match="'num_halos'"):
        demo(out=tmp_path, data=(f'root={tmp_path}', 'num_halos=-1'))


def test_spell():
    assert spell([0.25], 3) == '0.250'
    assert spell([1., 2., 3.], 1) == '2.0 ± 1.0'


def test_centered_cloud_is_the_same_cloud():
    torch.manual_seed(0)
    box = torch.tensor([[2., 3., 4.]])
    cloud = Data(pos=torch.rand(50, 3) * box, box=box)
    moved = figures.centered(cloud, cloud.pos[7])
    assert torch.allclose(moved.pos[7], box[0] / 2)
    change = moved.pos - cloud.pos - (moved.pos[7] - cloud.pos[7])
    assert torch.allclose(change / box, (change / box).round(), atol=1e-5)
    assert figures.central_point(moved) == 7
