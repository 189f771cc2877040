r"""Tasks that need no download."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torchmetrics.functional import accuracy

from benchmarks.graphs.data.graphs import Graphs
from benchmarks.graphs.data.task import SPLITS, Split, Task
from torch_geometric_erwin.datasets import (
    RingTransfer,
    SBMClustering,
    TreeNeighborsMatch,
)
from torch_geometric_erwin.datasets.drawn import DrawnDataset


class DrawnGraphs(Graphs):
    r"""Graphs of a dataset that is drawn at random.

    Args:
        root (str): Where to keep the graphs.
        num_train (int): Number of graphs to train on.
        num_val (int): Number of graphs to validate on.
        num_test (int): Number of graphs to test on.
        data_seed (int): Another one makes other graphs.
        **kwargs (optional): Arguments of :class:`Graphs`.
    """
    def __init__(self, root: str, num_train: int, num_val: int, num_test: int,
                 data_seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.sizes: dict[Split, int] = {
            'train': num_train, 'val': num_val, 'test': num_test}
        self.data_seed = data_seed

    def draw(self, make: Callable[..., DrawnDataset],
             **kwargs: Any) -> dict[Split, DrawnDataset]:
        return {split: make(self.root, split=split, seed=self.data_seed,
                            num_graphs=self.sizes[split],
                            pre_transform=self.positions, **kwargs)
                for split in SPLITS}


class RingTransferData(DrawnGraphs):
    r"""See :class:`~torch_geometric_erwin.datasets.RingTransfer`.

    Args:
        num_nodes (int, optional): Number of nodes of a ring.
            (default: :obj:`10`)
        num_classes (int, optional): Number of classes. (default: :obj:`5`)
        root (str, optional): Where to keep the graphs.
            (default: :obj:`"runs/data/ring_transfer"`)
        num_train (int, optional): Number of graphs to train on.
            (default: :obj:`1000`)
        num_val (int, optional): Number of graphs to validate on.
            (default: :obj:`200`)
        num_test (int, optional): Number of graphs to test on.
            (default: :obj:`500`)
        data_seed (int, optional): Another one makes other graphs.
            (default: :obj:`0`)
        **kwargs (optional): Arguments of :class:`Graphs`.
    """
    def __init__(
        self,
        num_nodes: int = 10,
        num_classes: int = 5,
        root: str = 'runs/data/ring_transfer',
        num_train: int = 1000,
        num_val: int = 200,
        num_test: int = 500,
        data_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, num_train, num_val, num_test, data_seed,
                         **kwargs)
        self.num_nodes = num_nodes
        self.num_classes = num_classes

    def load(self) -> Task:
        graphs = self.draw(RingTransfer, num_nodes=self.num_nodes,
                           num_classes=self.num_classes)
        return Task(graphs, 'node', 'cross_entropy', self.num_classes,
                    self.num_classes, 'accuracy', True, micro)


class TreeNeighborsMatchData(DrawnGraphs):
    r"""See :class:`~torch_geometric_erwin.datasets.TreeNeighborsMatch`.

    Args:
        depth (int, optional): Number of edges from the root to a leaf.
            (default: :obj:`3`)
        root (str, optional): Where to keep the graphs.
            (default: :obj:`"runs/data/tree_neighbors_match"`)
        num_train (int, optional): Number of graphs to train on.
            (default: :obj:`8000`)
        num_val (int, optional): Number of graphs to validate on.
            (default: :obj:`200`)
        num_test (int, optional): Number of graphs to test on.
            (default: :obj:`1000`)
        data_seed (int, optional): Another one makes other graphs.
            (default: :obj:`0`)
        **kwargs (optional): Arguments of :class:`Graphs`.
    """
    def __init__(
        self,
        depth: int = 3,
        root: str = 'runs/data/tree_neighbors_match',
        num_train: int = 8000,
        num_val: int = 200,
        num_test: int = 1000,
        data_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, num_train, num_val, num_test, data_seed,
                         **kwargs)
        self.depth = depth

    def load(self) -> Task:
        leaves = 2**self.depth
        graphs = self.draw(TreeNeighborsMatch, depth=self.depth)
        return Task(graphs, 'node', 'cross_entropy', [leaves + 1] * 2, leaves,
                    'accuracy', True, micro)


class SBMClusteringData(DrawnGraphs):
    r"""See :class:`~torch_geometric_erwin.datasets.SBMClustering`.

    Args:
        name (str, optional): :obj:`"CLUSTER"` or :obj:`"PATTERN"`.
            (default: :obj:`"CLUSTER"`)
        root (str, optional): Where to keep the graphs.
            (default: :obj:`"runs/data/sbm"`)
        num_train (int, optional): Number of graphs to train on.
            (default: :obj:`1000`)
        num_val (int, optional): Number of graphs to validate on.
            (default: :obj:`200`)
        num_test (int, optional): Number of graphs to test on.
            (default: :obj:`200`)
        data_seed (int, optional): Another one makes other graphs.
            (default: :obj:`0`)
        **kwargs (optional): Arguments of :class:`Graphs`.
    """
    def __init__(
        self,
        name: str = 'CLUSTER',
        root: str = 'runs/data/sbm',
        num_train: int = 1000,
        num_val: int = 200,
        num_test: int = 200,
        data_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, num_train, num_val, num_test, data_seed,
                         **kwargs)
        self.name = name

    def load(self) -> Task:
        graphs = self.draw(SBMClustering, name=self.name)
        categories, classes = (7, 6) if self.name == 'CLUSTER' else (3, 2)
        return Task(graphs, 'node', 'weighted_cross_entropy', [categories],
                    classes, 'balanced_accuracy', True, macro)


def score(out: Tensor, y: Tensor, average: str) -> float:
    return accuracy(out, y, 'multiclass', num_classes=out.size(1),
                    average=average).item()


micro = partial(score, average='micro')
macro = partial(score, average='macro')
