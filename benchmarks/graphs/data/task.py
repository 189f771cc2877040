from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch_geometric.data import Data

Split = Literal['train', 'val', 'test']
SPLITS: tuple[Split, ...] = ('train', 'val', 'test')


@dataclass
class Task:
    r"""Graphs, what to learn on them, and how that is scored.

    A graph has features :obj:`x`, :obj:`edge_index`, optionally
    :obj:`edge_attr`, and targets :obj:`y`: one row for the graph, or one for
    each node. At node level :obj:`mask`, where there is one, tells which
    nodes count; splits of the nodes of a single graph are three copies with
    different masks.

    Args:
        graphs (dict): The graphs of each split.
        level (str): :obj:`"graph"` or :obj:`"node"`.
        loss (str): :obj:`"cross_entropy"` or, with classes weighed by how
            rare they are, :obj:`"weighted_cross_entropy"` (targets of shape
            :math:`(M)`), :obj:`"binary_cross_entropy"` (targets are zero, one
            or NaN where unknown, of shape :math:`(M, T)`) or :obj:`"l1"`
            (targets are numbers, of shape :math:`(M, T)`).
        in_channels (int or list[int]): Size of each node's features, or, if
            they are categories, their numbers.
        out_channels (int): Number of classes or targets.
        metric (str): The name of the score.
        maximize (bool): Whether more of it is better.
        evaluate (callable): Returns the score of a network's outputs
            :math:`(M, T)` for all targets of a split.
        edge_channels (int or list[int], optional): The same for features of
            edges, if there are any.
    """
    graphs: dict[Split, Sequence[Data]]
    level: Literal['graph', 'node']
    loss: Literal['cross_entropy', 'weighted_cross_entropy',
                  'binary_cross_entropy', 'l1']
    in_channels: int | list[int]
    out_channels: int
    metric: str
    maximize: bool
    evaluate: Callable[[Tensor, Tensor], float]
    edge_channels: int | list[int] | None = None
