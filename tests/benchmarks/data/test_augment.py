import itertools

import pytest
import torch
from torch_geometric.data import Batch

from benchmarks.experiments.data.augment import (
    augment,
    orthogonal,
    signed_permutations,
    wrap,
)
from benchmarks.experiments.nets.graph import (
    neighbor_graph,
    relative_positions,
)
from tests.benchmarks.tiny import TinyClouds


@pytest.fixture(params=[2., None], ids=['periodic', 'open'])
def batch(request):
    data = TinyClouds(box=request.param)
    data.setup()
    return Batch.from_data_list(data.clouds['train'])


def test_signed_permutations_are_the_symmetries_of_the_cube():
    torch.manual_seed(0)
    found = signed_permutations(2000, 3, torch.zeros(()))
    every = {
        tuple(torch.diag(torch.tensor(sign))[list(order)].flatten().tolist())
        for order in itertools.permutations(range(3))
        for sign in itertools.product([-1., 1.], repeat=3)
    }
    rows = [tuple(turn.flatten().tolist()) for turn in found]
    assert len(every) == 48 and set(rows) == every
    counts = [rows.count(turn) for turn in every]
    assert min(counts) > 15 and max(counts) < 80  # 42 are expected


@pytest.mark.parametrize('dim', [1, 2, 3])
def test_orthogonal(dim):
    torch.manual_seed(0)
    turn = orthogonal(4000, dim, torch.zeros((), dtype=torch.float64))
    eye = torch.eye(dim, dtype=torch.float64)
    assert torch.allclose(turn @ turn.mT, eye.expand_as(turn), atol=1e-5)
    assert turn.mean(dim=0).abs().max() < 0.05
    assert (turn.square().mean(dim=0) - 1 / dim).abs().max() < 0.03


def test_augmented_clouds_are_the_same_seen_from_elsewhere(batch):
    torch.manual_seed(0)
    out = augment(batch.clone())
    before, after = neighbor_graph(batch, 4), neighbor_graph(out, 4)
    assert torch.equal(before, after)
    assert torch.equal(out.x, batch.x)
    assert torch.equal(out.batch, batch.batch)
    a, b = relative_positions(batch, before), relative_positions(out, after)
    assert torch.allclose(a.norm(dim=1), b.norm(dim=1), atol=1e-5)
    # Targets go along: their products with directions remain.
    i = before[1]
    assert torch.allclose((a * batch.y[i]).sum(1), (b * out.y[i]).sum(1),
                          atol=1e-4)
    # Every cloud has a turn of its own.
    edges = [batch.batch[i] == cloud for cloud in range(batch.num_graphs)]
    turns = [torch.linalg.lstsq(a[e], b[e]).solution.mT for e in edges]
    assert len({str(turn.round(decimals=2).tolist()) for turn in turns}) > 3
    for turn, cloud in zip(turns, edges, strict=True):
        assert torch.allclose(a[cloud] @ turn.mT, b[cloud], atol=1e-4)
        assert torch.allclose(turn @ turn.mT, torch.eye(3), atol=1e-4)


def test_boxes_turn_along(batch):
    torch.manual_seed(0)
    out = augment(batch.clone())
    if 'box' not in batch:
        assert 'box' not in out
        return
    assert torch.equal(out.box.sort(dim=1)[0], batch.box.sort(dim=1)[0])
    assert not torch.equal(out.box, batch.box)
    assert (out.pos >= 0).all() and (out.pos < out.box[out.batch]).all()


def test_wrap():
    box = torch.tensor([[1., 2.]])
    pos = torch.tensor([[-1e-9, 2.], [1.25, -0.5]])
    assert torch.equal(wrap(pos, box), torch.tensor([[0., 0.], [0.25, 1.5]]))
