import math

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from benchmarks.experiments.data import PointClouds
from benchmarks.experiments.regression import Regression
from tests.benchmarks.tiny import TinyClouds, TinyNet


class Given(PointClouds):
    def __init__(self, train: list[Data], val: list[Data]) -> None:
        super().__init__()
        self.given = {'train': train, 'val': val, 'test': val}

    def load(self) -> dict[str, list[Data]]:
        return self.given


def cloud(**kwargs) -> Data:
    return Data(**{'x': torch.ones(8, 1), 'pos': torch.rand(8, 3),
                   'y': torch.randn(8, 3), 'box': torch.ones(1, 3), **kwargs})


class Spy(Regression):
    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        self.seen.append((batch.pos, torch.rand(1).item()))


def watch(trainer, data, epochs=2):
    module = Spy(TinyNet())
    module.seen = []
    trainer(max_epochs=epochs).fit(module, data)
    return module.seen


def test_every_step_has_its_own_random_numbers(trainer):
    data = TinyClouds(batch_size=2)
    seen = watch(trainer, data)
    torch.manual_seed(123)
    again = watch(trainer, TinyClouds(batch_size=2))
    other = watch(trainer, TinyClouds(batch_size=2, seed=1))
    assert len(seen) == 6 and len({number for _, number in seen}) == 6
    for (a, x), (b, y), (c, z) in zip(seen, again, other, strict=True):
        assert torch.equal(a, b) and x == y
        assert not torch.equal(a, c) and x != z


def test_order_depends_on_seed_and_epoch(trainer):
    def order(seed):
        data = TinyClouds(seed=seed, augment=False)
        seen = watch(trainer, data)
        pos = [str(cloud.pos[0].tolist()) for cloud in data.clouds['train']]
        return [pos.index(str(p[0].tolist())) for p, _ in seen]

    found = order(0)
    assert sorted(found[:6]) == sorted(found[6:]) == list(range(6))
    assert found[:6] != found[6:] and found == order(0) != order(1)


def test_workers():
    data = TinyClouds(batch_size=2)
    data.setup()
    here = [batch.pos for batch in data.train_dataloader()]
    data.num_workers = 1
    there = [batch.pos for batch in data.train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_repeats():
    data = TinyClouds(repeats=3, augment=False)
    data.setup()
    pos = [batch.pos for batch in data.train_dataloader()]
    assert len(pos) == 18
    assert len({str(p[0].tolist()) for p in pos}) == 6


def test_only_training_is_augmented(trainer):
    data = TinyClouds(batch_size=2)
    seen = []

    class Watch(Regression):
        def validation_step(self, batch, batch_idx):
            seen.append(batch.pos)
            super().validation_step(batch, batch_idx)

    trainer().fit(Watch(TinyNet()), data)
    want = next(iter(DataLoader(data.clouds['val'], batch_size=2))).pos
    assert len(seen) == 2 and all(torch.equal(pos, want) for pos in seen)


def test_units_without_boxes():
    pos = torch.tensor([[0., 0., 0.], [1., 2., 4.]])
    y = torch.tensor([[3., 0., 0.], [0., 0., 1.]])
    train = [Data(x=torch.ones(2, 1), pos=pos + 5, y=y)]
    data = Given(train, train)
    data.setup()
    assert data.length == pytest.approx(4**(1 / 3))
    assert data.scale == pytest.approx(math.sqrt(10 / 6))
    assert data.num_features == 1 and data.dim == 3


@pytest.mark.parametrize('bad, match', [
    ({'box': torch.tensor([[1., 0., 1.]])}, r"'box' of cloud 0.*1\.0, 0\.0"),
    ({'box': torch.ones(3)}, r"'box' of cloud 0 of 'val'.*\[1, 3\]"),
    ({'box': None}, "all clouds or none to have a 'box'"),
    ({'y': torch.ones(8, 2)}, r"'y' of cloud 0.*\[8, 3\] \(got \[8, 2\]\)"),
    ({'y': torch.ones(8)}, r"'y' of cloud 0.*\(got \[8\]\)"),
    ({'y': torch.full((8, 3), math.nan)}, "'y' of cloud 0.*finite"),
    ({'x': torch.ones(8, 2)}, r"'x' of cloud 0.*\[8, 1\] \(got \[8, 2\]\)"),
    ({'pos': torch.full((8, 3), math.inf)}, "'pos' of cloud 0.*finite"),
    ({'x': torch.ones(0, 1), 'pos': torch.ones(0, 3),
      'y': torch.ones(0, 3)}, 'to have points'),
])
def test_bad_clouds(bad, match):
    data = cloud(**bad)
    if bad.get('box', True) is None:
        del data.box
    with pytest.raises(ValueError, match=match):
        Given([cloud()], [data]).setup()


def test_bad_training_clouds():
    flat = cloud(pos=torch.zeros(8, 3))
    del flat.box
    with pytest.raises(ValueError, match='flat'):
        Given([flat], [flat]).setup()
    still = cloud(y=torch.zeros(8, 3))
    with pytest.raises(ValueError, match='targets other than zero'):
        Given([still], [still]).setup()
    with pytest.raises(ValueError, match=r"at least one cloud in 'val'"):
        Given([cloud()], []).setup()


@pytest.mark.parametrize('name', ['batch_size', 'repeats'])
def test_bad_arguments(name):
    with pytest.raises(ValueError, match=f"'{name}' to be positive"):
        TinyClouds(**{name: 0})
