r"""What OGB's datasets and evaluators need to be those of a task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter, to_undirected

Loss = Literal['cross_entropy', 'binary_cross_entropy', 'l1']
LOSSES: dict[str, Loss] = {
    'binary classification': 'binary_cross_entropy',
    'multiclass classification': 'cross_entropy',
    'regression': 'l1',
}


@dataclass
class Prepare:
    r"""Makes graphs of OGB those of a task, before anything else does.

    Nodes without features get the means of those of their edges, as in OGB's
    examples for :obj:`ogbn-proteins`.

    Args:
        loss (str): See :class:`~benchmarks.graphs.data.task.Task`.
        undirected (bool): Whether to add the edges' opposites.
        finish (callable, optional): What comes then.
    """
    loss: Loss
    undirected: bool
    finish: Callable[[Data], Data] | None

    def __call__(self, data: Data) -> Data:
        data.y = as_targets(data.y, self.loss)
        if self.undirected:
            data.edge_index = to_undirected(data.edge_index,
                                            num_nodes=data.num_nodes)
        if data.x is None:
            data.x = scatter(data.edge_attr.float(), data.edge_index[1],
                             dim_size=data.num_nodes, reduce='mean')
        return data if self.finish is None else self.finish(data)


def as_targets(y: Tensor, loss: Loss) -> Tensor:
    if loss == 'cross_entropy':
        return y.flatten().long()
    return y.float().reshape(y.size(0), -1)


@dataclass
class Score:
    r"""Asks an evaluator of OGB.

    Args:
        evaluator (Any): One of OGB's, with a method :meth:`eval`.
        metric (str): What of its results to return.
    """
    evaluator: Any
    metric: str

    def __call__(self, out: Tensor, y: Tensor) -> float:
        if out.dim() != 2 or out.size(0) != y.size(0):
            raise ValueError(f"Expected 'out' to have one row for each of "
                             f"{y.size(0)} targets (got shape "
                             f"{list(out.shape)})")
        # NumPy, which it computes with, does not know bfloat16.
        out, y = out.detach().float().cpu(), y.detach().cpu()
        if self.metric == 'acc':
            out, y = out.argmax(dim=1, keepdim=True), y.view(-1, 1)
        elif self.metric == 'mae':
            out, y = out.flatten(), y.flatten()
        inputs = {'y_true': y, 'y_pred': out}
        return float(self.evaluator.eval(inputs)[self.metric])


class MaskedGraph(Sequence[Data]):
    r"""The only graph of a dataset, with a :obj:`mask` of the nodes that
    count. All else is shared with other splits.

    Args:
        dataset (Sequence[Data]): The dataset, without a transform.
        nodes (torch.Tensor): Which of them count.
        transform (callable, optional): What is done with the graph whenever
            it is asked for.
    """
    def __init__(self, dataset: Sequence[Data], nodes: Tensor,
                 transform: Callable[[Data], Data] | None = None) -> None:
        self.dataset = dataset
        self.nodes = nodes
        self.transform = transform

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, i: int) -> Data: ...

    @overload
    def __getitem__(self, i: slice) -> Sequence[Data]: ...

    def __getitem__(self, i: int | slice) -> Data | Sequence[Data]:
        if isinstance(i, slice):
            return [self[j] for j in range(1)[i]]
        data = self.dataset[range(1)[i]]
        data.mask = torch.zeros(data.num_nodes, dtype=torch.bool)
        data.mask[self.nodes] = True
        return data if self.transform is None else self.transform(data)


def channels(value: Tensor, stored: Tensor,
             sizes: list[int] | None) -> int | list[int]:
    r"""Returns the size of features, or, of integers, their numbers of
    categories.

    Args:
        value (torch.Tensor): The features of a graph.
        stored (torch.Tensor): Those of all.
        sizes (list[int], optional): What OGB says of those of molecules.
    """
    if value.is_floating_point():
        return value.size(1)
    if sizes is not None and value.size(1) == len(sizes):
        return sizes
    return (stored.max(dim=0).values + 1).tolist()
