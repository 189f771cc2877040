import functools

import pytest
import torch
import torch_geometric.transforms as T

from torch_geometric_erwin.datasets.fingerprint import fingerprint


def add(data, number=0):
    return data


def test_options_count():
    r"""Also where the text of a transform does not tell them."""
    transforms = [T.AddLaplacianEigenvectorPE(k=2),
                  T.AddLaplacianEigenvectorPE(k=3), add,
                  functools.partial(add, number=1),
                  functools.partial(add, number=2), None,
                  T.Compose([add]), T.Compose([add, add]),
                  T.LinearTransformation(torch.eye(3)),
                  T.LinearTransformation(torch.ones(3, 3)),
                  T.FeaturePropagation(missing_mask=torch.ones(2, 2) > 0)]
    prints = [fingerprint('a', each) for each in transforms]
    assert len(set(prints)) == len(transforms)
    assert fingerprint('b', None) != fingerprint('a', None)


def test_equal_options():
    first, second = (T.Compose([T.AddRandomWalkPE(4), T.NormalizeScale()])
                     for _ in range(2))
    assert fingerprint(first, {'a': 1, 'b': 2}) == \
        fingerprint(second, {'b': 2, 'a': 1})


@pytest.mark.parametrize('value', [lambda data: data, object()])
def test_what_cannot_be_told_apart(value):
    with pytest.raises(ValueError, match='Expected'):
        fingerprint(value)
