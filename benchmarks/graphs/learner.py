import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch

from benchmarks.experiments.optimized import Optimized
from benchmarks.graphs.data.task import Split, Task
from benchmarks.graphs.nets import GraphNet


class Learner(Optimized):
    r"""Learns a :class:`~benchmarks.graphs.data.Task`, and scores it as the
    task says: :obj:`val/score` is its metric, negative where less of it is
    better.

    Args:
        net (GraphNet): The network.
        lr (float, optional): The highest learning rate.
            (default: :obj:`1e-3`)
        weight_decay (float, optional): Weight decay of matrices; biases and
            norms have none. (default: :obj:`0.01`)
        warmup (float, optional): The part of training in which the learning
            rate rises. (default: :obj:`0.05`)
        clip (float, optional): The largest norm of the gradient.
            (default: :obj:`1.`)

    Raises:
        ValueError: If an argument is out of range; on setup, if network and
            data do not fit each other.
    """
    task: Task

    def __init__(
        self,
        net: GraphNet,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        clip: float = 1.,
    ) -> None:
        super().__init__(net, lr, weight_decay, warmup, clip)
        self.save_hyperparameters(ignore='net')
        self._found: list[tuple[Tensor, Tensor]] = []

    def setup(self, stage: str) -> None:
        r"""Makes the network as large as the data ask for."""
        if self.trainer.world_size > 1:
            raise ValueError(f"Expected 'trainer' to run one process, which "
                             f"scores a whole split at once (got "
                             f"{self.trainer.world_size})")
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.task = data.task
        self.net.build(data.task, data.dim)

    def forward(self, data: Batch) -> Tensor:
        return self.net(data)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        out, y = self._predict(batch)
        loss = loss_of(out, y, self.task.loss)
        self.log('train/loss', loss, prog_bar=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._found.append(self._predict(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._found.append(self._predict(batch))

    def on_validation_epoch_end(self) -> None:
        self._score('val')

    def on_test_epoch_end(self) -> None:
        self._score('test')

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        out, y = self(batch), batch.y
        if self.task.level == 'node' and 'mask' in batch:
            out, y = out[batch.mask], y[batch.mask]
        return out, y

    def _score(self, split: Split) -> None:
        outs, ys = zip(*self._found, strict=True)
        self._found.clear()
        if self.trainer.sanity_checking:  # too few graphs for some scores
            return
        out, y = torch.cat(outs), torch.cat(ys)
        loss = loss_of(out, y, self.task.loss)
        value = self.task.evaluate(out.float().cpu(), y.cpu())
        score = value if self.task.maximize else -value
        self.log_dict({f'{split}/loss': loss, f'{split}/score': score,
                       f'{split}/{self.task.metric}': value}, prog_bar=True)


def loss_of(out: Tensor, y: Tensor, name: str) -> Tensor:
    r"""Returns the mean loss of the targets that are known."""
    if name == 'cross_entropy':
        return F.cross_entropy(out, y)
    if name == 'weighted_cross_entropy':
        return F.cross_entropy(out, y, rarity(y, out.size(1)))
    known = ~y.isnan()
    if not known.any():
        return 0. * out.sum()
    out, y = out[known], y[known].to(out.dtype)
    if name == 'binary_cross_entropy':
        return F.binary_cross_entropy_with_logits(out, y)
    return F.l1_loss(out, y)


def rarity(y: Tensor, num_classes: int) -> Tensor:
    r"""Weighs classes by the part of the targets that are others, as the
    `"Benchmarking Graph Neural Networks" <https://arxiv.org/abs/2003.00982>`_
    paper does.
    """
    part = torch.bincount(y, minlength=num_classes) / len(y)
    return torch.where(part < 1., 1. - part, 1.)  # one class is not rare
