import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from torch_geometric.data import Batch

from benchmarks.graphs.data import (
    RingTransferData,
    SBMClusteringData,
    TreeNeighborsMatchData,
)
from benchmarks.graphs.data.drawn import macro, micro
from benchmarks.graphs.learner import Learner, loss_of
from benchmarks.graphs.nets import GCN, Hybrid
from torch_geometric_erwin.transforms import AddLaplacianPos

SIZES = {'num_train': 64, 'num_val': 16, 'num_test': 16}


def make_trainer(**kwargs):
    return Trainer(accelerator='cpu', logger=False,
                   enable_checkpointing=False, enable_progress_bar=False,
                   enable_model_summary=False, **kwargs)


def test_losses():
    out, nan = torch.randn(6, 2), math.nan
    y = torch.tensor([0, 0, 0, 0, 0, 1])
    assert loss_of(out, y, 'cross_entropy') == F.cross_entropy(out, y)
    weight = torch.tensor([1 / 6, 5 / 6])
    torch.testing.assert_close(loss_of(out, y, 'weighted_cross_entropy'),
                               F.cross_entropy(out, y, weight))
    y = torch.tensor([[0., 1.], [nan, 1.], [nan, nan]])
    want = torch.stack([F.softplus(out[0, 0]), F.softplus(-out[0, 1]),
                        F.softplus(-out[1, 1])]).mean()
    torch.testing.assert_close(loss_of(out[:3], y, 'binary_cross_entropy'),
                               want)
    want = torch.stack([out[0, 0], out[0, 1] - 1, out[1, 1] - 1]).abs().mean()
    torch.testing.assert_close(loss_of(out[:3], y, 'l1'), want)


def test_weights_of_a_single_class():
    out, y = torch.randn(4, 2), torch.ones(4, dtype=torch.long)
    torch.testing.assert_close(loss_of(out, y, 'weighted_cross_entropy'),
                               F.cross_entropy(out, y))


@pytest.mark.parametrize('loss', ['binary_cross_entropy', 'l1'])
def test_nothing_known(loss):
    out = torch.randn(3, 2, requires_grad=True)
    loss_of(out, torch.full((3, 2), math.nan), loss).backward()
    assert out.grad.eq(0).all()


def test_scores():
    out = F.one_hot(torch.tensor([0, 0, 0, 0, 1]), 2).float()
    y = torch.tensor([0, 0, 0, 1, 1])
    assert micro(out, y) == pytest.approx(0.8)
    assert macro(out, y) == pytest.approx(0.75)


def test_learns_what_message_passing_cannot(tmp_path):
    r"""On rings of 24, the other side is 12 hops away."""
    scores = {}
    for net in (GCN, Hybrid):
        seed_everything(0, verbose=False)
        data = RingTransferData(
            24, 2, str(tmp_path), positions=AddLaplacianPos(4), batch_size=16,
            num_train=256, num_val=8, num_test=64)
        learner = Learner(net(num_layers=2, budget=10_000, ball_size=32),
                          lr=5e-3)
        trainer = make_trainer(max_epochs=12, limit_val_batches=0)
        trainer.fit(learner, datamodule=data)
        score, = trainer.test(learner, datamodule=data, verbose=False)
        scores[net] = score['test/accuracy']
        assert score['test/score'] == score['test/accuracy']
    assert scores[GCN] < 0.7 and scores[Hybrid] > 0.95


@pytest.mark.parametrize('data', [
    lambda root: TreeNeighborsMatchData(2, root, **SIZES),
    lambda root: SBMClusteringData('CLUSTER', root, **SIZES),
    lambda root: SBMClusteringData('PATTERN', root, **SIZES),
])
def test_drawn_tasks_train(tmp_path, data):
    data = data(str(tmp_path))
    learner = Learner(GCN(num_layers=2, budget=10_000))
    trainer = make_trainer(max_epochs=2)
    trainer.fit(learner, datamodule=data)
    metrics = trainer.callback_metrics
    name = data.task.metric
    assert 0 <= metrics[f'val/{name}'] <= 1
    assert metrics['val/score'] == metrics[f'val/{name}']
    # By hand, on all graphs at once.
    learner.eval()
    batch = Batch.from_data_list(list(data.task.graphs['val']))
    out, y = learner(batch), batch.y
    if 'mask' in batch:
        out, y = out[batch.mask], y[batch.mask]
    assert metrics['val/score'].item() == pytest.approx(
        data.task.evaluate(out, y))


def test_order_of_graphs(tmp_path):
    def order(seed):
        data = RingTransferData(root=str(tmp_path), seed=seed, **SIZES)
        data.setup()
        return [batch.y.tolist() for batch in data.train_dataloader()]

    assert order(0) == order(0) != order(1)


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"'batch_size'.*got 0"):
        RingTransferData(batch_size=0)
    with pytest.raises(ValueError, match=r"'lr'.*got 0"):
        Learner(GCN(), lr=0.)
    data = RingTransferData(root=str(tmp_path), **SIZES)
    with pytest.raises(ValueError, match='AddLaplacianPos'):
        make_trainer(max_epochs=1).fit(Learner(Hybrid()), datamodule=data)


def test_one_process(tmp_path):
    data = RingTransferData(root=str(tmp_path), **SIZES)
    learner = Learner(GCN())
    learner.trainer = type('Two', (), {
        'world_size': 2, 'datamodule': data})()
    with pytest.raises(ValueError, match=r"one process.*got 2"):
        learner.setup('fit')
