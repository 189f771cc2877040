import os

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from torch_geometric_erwin.datasets import EAGLE, MovingJet
from torch_geometric_erwin.datasets.jet_scene import (
    KINDS,
    draw_ground,
    draw_scene,
)
from torch_geometric_erwin.datasets.moving_jet import physical

SMALL = {'num_steps': 12, 'interval': 20, 'shape': (40, 64)}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return tmp_path_factory.mktemp('jets')


@pytest.fixture(scope='module')
def data(root):
    return MovingJet(root, num_simulations=2, window=12, start=0, **SMALL)


def test_flow(data):
    assert len(data) == 2
    for sample in data:
        speed = sample.y[..., :2].norm(dim=2)
        assert sample.y.isfinite().all()
        # It gathers way, downwards, below the fan, and not at the ground.
        assert 0.5 < speed[:, -1].max() < 10 and speed[:, 0].max() < (
            speed[:, -1].max())
        fan = sample.node_type[:, -1] == 4
        assert fan.any() and sample.y[fan, -1, 1].mean() < -0.5
        wall = sample.node_type[:, -1] == 6
        assert wall.any() and speed[wall].max() < 0.5 * speed.max()
        # The total pressure is more than the static one.
        static, total = sample.y[..., 2:].unbind(2)
        dynamic = 0.5 * 1.2 * speed.square()
        assert torch.allclose(total - static, dynamic, atol=1e-3)


def test_mesh(data):
    sample = data[0]
    pos, face = sample.pos, sample.face[:, sample.face_step == 0]
    a, b, c = pos[face]
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area > 0).all()  # none is turned over
    assert face.unique().numel() == len(pos)
    assert len(pos.unique(dim=0)) == len(pos)
    assert set(sample.node_type.unique().tolist()) == {0, 4, 5, 6}


def test_the_fan_flies():
    rng = torch.Generator().manual_seed(0)
    scene = draw_scene((96, 192), 4000, rng)
    x, y = scene.path.t()
    assert x.min() > 10 and x.max() < 182 and x.max() - x.min() > 40
    assert y.min() > 0.5 * 96 and y.max() < 0.9 * 96
    # Slower than the air that it blows away.
    assert scene.path.diff(dim=0).norm(dim=1).max() < 0.2
    fan = scene.fan(2000).nonzero().float().mean(0).flip(0)
    assert torch.allclose(fan, scene.path[2000], atol=1.)


def test_the_same_again_and_others(root, data, tmp_path):
    again = MovingJet(tmp_path, num_simulations=1, window=12, start=0,
                      **SMALL)
    assert torch.equal(again[0].y, data[0].y)
    assert not torch.equal(data[0].pos, data[1].pos)
    for kwargs in ({'split': 'val'}, {'seed': 1}):
        other = MovingJet(root, num_simulations=1, window=12, start=0,
                          **SMALL, **kwargs)
        assert other[0].y.shape != data[0].y.shape or not torch.equal(
            other[0].y, data[0].y)


def test_a_smaller_dataset_is_the_beginning(root, data):
    small = MovingJet(root, num_simulations=1, window=12, start=0, **SMALL)
    assert len(small) == 1 and torch.equal(small[0].y, data[0].y)
    large = MovingJet(root, num_simulations=2, window=3, **SMALL)
    assert len(large) == 2 and large[1].y.size(1) == 3


@pytest.mark.parametrize('split, steps', [('train', 6), ('val', 2),
                                          ('test', 12)])
def test_windows_by_default(tmp_path, split, steps):
    data = MovingJet(tmp_path, split, num_simulations=1, **SMALL)
    assert data[0].y.size(1) == steps


def test_eagle_reads_it(data):
    eagle = EAGLE(data.root, window=4, start=2)
    assert torch.equal(eagle[1].y, data[1].y[:, 2:6])
    batch = next(iter(DataLoader(eagle, batch_size=2)))
    assert batch.face.max() < batch.num_nodes and batch.num_graphs == 2


def test_what_was_not_finished_is_made_anew(data):
    path = os.path.join(data.root, data.simulations[1], 'sim.npz')
    before = data[1].y
    os.remove(path)
    root = os.path.dirname(data.root)
    again = MovingJet(root, num_simulations=2, window=12, start=0, **SMALL)
    assert torch.equal(again[1].y, before)


@pytest.mark.parametrize('kind', KINDS)
def test_grounds(kind):
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        ground = draw_ground(kind, 50, 40, rng)
        assert ground.shape == (50, ) and ground.min() >= 1
        assert ground.max() <= 16


def test_units():
    fields = physical(*torch.tensor([[1.003], [0.06], [0.08]])).flatten()
    expected = [3., 4., 1.2 * 2500 * 0.001, 3. + 0.6 * 25.]
    assert np.allclose(fields, expected, rtol=1e-3)


@pytest.mark.parametrize('name, value', [
    ('split', 'all'), ('num_simulations', 0), ('num_steps', 0),
    ('interval', 0), ('shape', (8, 64))])
def test_errors(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"'{name}'"):
        MovingJet(tmp_path, **{**SMALL, name: value})
    assert not any(tmp_path.iterdir())
