import pytest
import torch

from benchmarks.experiments.data import HaloMockData
from torch_geometric_erwin.datasets import HaloMock

SMALL = {'num_train': 3, 'num_val': 2, 'num_test': 1, 'num_halos': 50,
         'grid_size': 16, 'box_size': 200.}


def test_splits(tmp_path):
    data = HaloMockData(str(tmp_path), **SMALL, batch_size=2)
    data.prepare_data()
    data.setup()
    assert {k: len(v) for k, v in data.clouds.items()} == {
        'train': 3, 'val': 2, 'test': 1}
    want = HaloMock(str(tmp_path), 'val', 2, 50, 200., 16)[1]
    got = data.clouds['val'][1]
    assert torch.equal(got.pos, want.pos) and torch.equal(got.y, want.y)
    assert torch.equal(got.x, torch.ones(50, 1))
    assert data.length == pytest.approx(200 / 50**(1 / 3))
    batch = next(iter(data.val_dataloader()))
    assert batch.box.shape == (2, 3) and batch.ptr.tolist() == [0, 50, 100]


def test_other_clouds(tmp_path):
    pos = []
    for seed, data_seed in ((0, 0), (1, 0), (0, 1)):
        data = HaloMockData(str(tmp_path), **SMALL, seed=seed,
                            data_seed=data_seed)
        data.setup()
        pos.append(data.clouds['train'][0].pos)
    assert torch.equal(pos[0], pos[1]) and not torch.equal(pos[0], pos[2])


def test_box_of_zero(tmp_path):
    data = HaloMockData(str(tmp_path / 'data'), **{**SMALL, 'box_size': 0.})
    with pytest.raises(ValueError, match=r"'box_size' to be a positive"):
        data.prepare_data()
    assert not (tmp_path / 'data').exists()
