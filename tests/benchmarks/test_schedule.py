import pytest

from benchmarks.experiments.schedule import warmup_cosine


@pytest.mark.parametrize('progress, warmup, want', [
    (0., 0.2, 0.), (0.1, 0.2, 0.5), (0.2, 0.2, 1.), (0.6, 0.2, 0.5),
    (1., 0.2, 0.), (1.5, 0.2, 0.), (0., 0., 1.), (0.5, 0., 0.5),
    (0.5, 1., 0.5), (1., 1., 1.),
])
def test_warmup_cosine(progress, warmup, want):
    assert warmup_cosine(progress, warmup) == pytest.approx(want)
