import pytest
import torch

from benchmarks.experiments import time_budget
from benchmarks.experiments.regression import Regression
from benchmarks.experiments.time_budget import TimeBudget
from tests.benchmarks.tiny import TinyClouds, TinyNet


class Clock:
    r"""Steps take a second, validation takes a hundred."""
    def __init__(self) -> None:
        self.now = 0.

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 2  # others use the processor, too


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time_budget, 'time', clock)
    return clock


class Slow(Regression):
    clock: Clock

    def training_step(self, batch, batch_idx):
        self.clock.now += 1
        self.rates.append(self.trainer.optimizers[0].param_groups[1]['lr'])
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.clock.now += 100
        super().validation_step(batch, batch_idx)


def make(clock):
    module = Slow(TinyNet(), lr=2., warmup=0.2)
    module.clock, module.rates = clock, []
    return module, TinyClouds(batch_size=2)


def test_trains_for_the_time(clock, trainer):
    budget = TimeBudget(minutes=10 / 60)
    runner = trainer(callbacks=[budget], max_epochs=1)
    module, data = make(clock)
    runner.fit(module, data)
    assert runner.global_step == len(module.rates) == 10
    assert budget.seconds == 10 and budget.progress == pytest.approx(1.)
    assert module.rates[:3] == [pytest.approx(x) for x in (0., 1., 2.)]
    assert module.rates[6] == pytest.approx(1.)
    assert module.rates == [*module.rates[:2],
                            *sorted(module.rates[2:], reverse=True)]
    # Validated after the last step, too.
    assert runner.callback_metrics['val/r2'].isfinite()


def test_trains_for_the_time_of_a_processor(clock, trainer):
    budget = TimeBudget(minutes=10 / 60, clock='cpu')
    runner = trainer(callbacks=[budget])
    module, data = make(clock)
    runner.fit(module, data)
    assert runner.global_step == 20 and budget.seconds == 10
    assert runner.callback_metrics['train/progress'] == pytest.approx(1.)


def test_resumes_with_the_time_that_is_left(clock, trainer, tmp_path):
    path = tmp_path / 'six.ckpt'
    runner = trainer(callbacks=[TimeBudget(minutes=6 / 60)])
    module, data = make(clock)
    runner.fit(module, data)
    runner.save_checkpoint(path)
    assert torch.load(path)['callbacks']['TimeBudget'] == {'seconds': 6.}

    budget = TimeBudget(minutes=10 / 60)
    runner = trainer(callbacks=[budget])
    module, data = make(clock)
    runner.fit(module, data, ckpt_path=path)
    assert runner.global_step == 10 and len(module.rates) == 4
    assert module.rates[0] == pytest.approx(1.)
    assert budget.seconds == 10


def test_resumes_with_no_time_left(clock, trainer, tmp_path):
    for steps in (6, 0):
        module, data = make(clock)
        runner = trainer(callbacks=[TimeBudget(minutes=6 / 60)])
        runner.fit(module, data,
                   ckpt_path=None if steps else tmp_path / 'all.ckpt')
        assert len(module.rates) == steps and runner.global_step == 6
        runner.save_checkpoint(tmp_path / 'all.ckpt')


@pytest.mark.parametrize('minutes', [0., -1., float('inf'), float('nan')])
def test_bad_time(minutes):
    with pytest.raises(ValueError, match="'minutes' to be a positive time"):
        TimeBudget(minutes)


def test_bad_clock():
    with pytest.raises(ValueError, match="'clock' to be 'wall' or 'cpu'"):
        TimeBudget(1., clock='sun')
