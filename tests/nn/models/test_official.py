import os

import pytest
import torch

from tests.nn.models import parity
from torch_geometric_erwin import BallTree, ErwinTransformer


def check(run: dict) -> None:
    for dtype, tolerances in {torch.float32: (1e-4, 1e-3, 1e-3),
                              torch.float64: (1e-7, 1e-7, 1e-6)}.items():
        for (name, value), tolerance in zip(parity.compare(run, dtype),
                                            tolerances, strict=True):
            assert value < tolerance, name


@pytest.mark.parametrize('i', [0, 1])
def test_golden_numbers(i):
    r"""What the authors' code computed; see `parity.py`."""
    run = parity.read_golden(i)
    assert not run['mask'].all() and run['out'].abs().max() > 1
    check(run)


@pytest.mark.skipif('OFFICIAL_ERWIN' not in os.environ,
                    reason="OFFICIAL_ERWIN names no clone of the authors' "
                    "code")
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('config, sizes', parity.CASES)
def test_side_by_side(config, sizes, training):
    theirs = parity.load_theirs(os.environ['OFFICIAL_ERWIN'])
    check(parity.run_theirs(theirs, config, sizes, training))


def load() -> dict:
    return parity.read_golden(1)


def test_weights_inside_of_a_larger_model():
    run = load()
    weights = {f'module.dynamics_model.{k}': v
               for k, v in run['weights'].items()}
    weights['module.proj_model.weight'] = torch.zeros(1)
    model = ErwinTransformer.from_official(weights, **run['config'])
    other = ErwinTransformer.from_official(run['weights'], **run['config'])
    for a, b in zip(model.state_dict().values(), other.state_dict().values(),
                    strict=True):
        assert torch.equal(a, b)


def test_official_model_builds_trees_of_its_own():
    r"""Close to the authors', but for what their virtual nodes add."""
    run = load()
    model = ErwinTransformer.from_official(run['weights'], **run['config'])
    model.double().eval()
    out = model(run['x'], pos=run['pos'], batch=run['batch'])
    assert out.shape == run['out'].shape and out.isfinite().all()
    assert model.completion == 'perfect' and model.rotations[0] == 0.


def balls(tree: BallTree) -> list[set]:
    r"""The points of each ball, at each level and in each orientation."""
    member = [frozenset([i]) for i in range(tree.num_points)]
    out = []
    for level in tree.levels:
        out += [{frozenset().union(*(member[i] for i in ball))
                 for ball in index.view(-1, level.ball_size).tolist()}
                for index in level.index]
        if level.stride is not None:
            groups = level.index[0].view(-1, level.stride).tolist()
            member = [frozenset().union(*(member[i] for i in group))
                      for group in groups]
    return out


@pytest.mark.parametrize('i', range(4))
def test_golden_trees(i):
    r"""Where no slot is virtual, all balls hold the same points, and these
    come in the same order where that is not arbitrary.
    """
    found = torch.load(parity.TREES, weights_only=True)[i]
    pos = found['pos']
    run = parity.read_golden(pos.size(1) - 2)
    config = {**run['config'], 'rotate': found['angle']}
    index = found['index'].long()
    theirs = BallTree.from_permutation(
        pos, None, index, None, ball_size=config['ball_sizes'],
        strides=config['strides'], virtual='copy',
        rotated=[x.long() for x in found['rotated']])
    model = ErwinTransformer.from_official(run['weights'], **config).eval()
    ours = model.build_tree(pos)
    assert balls(ours) == balls(theirs)
    same = ours.levels[0].index[0] == index
    assert same.view(-1, 8)[:, [2, 3, 4, 5, 6, 7]].all()
    model.rotations = [0., found['angle'] / 2]
    assert balls(model.build_tree(pos)) != balls(theirs)

    # Small clouds and virtual slots stay trees of their points.
    batch = torch.arange(5).repeat_interleave(torch.tensor([3, 16, 1, 9, 227]))
    tree = model.build_tree(pos, batch)
    plain = BallTree.build(pos, batch, ball_size=config['ball_sizes'],
                           strides=config['strides'], completion='perfect')
    assert balls(tree)[0] == balls(plain)[0]
    part = tree.partition(0)
    assert torch.equal(part.index[part.inverse], torch.arange(256))
    assert part.mask[part.inverse].all()


def test_wrong_weights():
    run = load()
    weights, config = run['weights'], run['config']
    first = next(k for k in weights if 'BMSA.proj.weight' in k)
    for bad, text in (
        ({k: v for k, v in weights.items() if k != first}, 'attn.lin_out'),
        ({**weights, 'encoder.0.blocks.0.extra': torch.zeros(1)}, 'extra'),
        ({}, 'embed.embed_fn.weight'),
    ):
        with pytest.raises(ValueError, match=f"Expected 'state_dict'.*{text}"):
            ErwinTransformer.from_official(bad, **config)
    for bad in ({**config, 'depth': 3},
                {k: v for k, v in config.items() if k != 'rotate'}):
        with pytest.raises(ValueError, match=r'depth|rotate'):
            ErwinTransformer.from_official(weights, **bad)
