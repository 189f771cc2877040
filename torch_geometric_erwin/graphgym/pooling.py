from typing import Any

import torch
from torch import Tensor
from torch_geometric.graphgym.register import register_pooling
from torch_geometric.utils import scatter

from torch_geometric_erwin.graphgym.forward_pass import find_tree
from torch_geometric_erwin.nn.checks import check_input
from torch_geometric_erwin.tree import BallTree


@register_pooling('ball_pooling')
def ball_pooling(x: Tensor, batch: Tensor | None, size: int | None = None,
                 tree: BallTree | None = None) -> Tensor:
    r"""Pools graphs along their ball trees (registered as
    :obj:`ball_pooling`): the maximum within each ball, then the mean over
    the balls :math:`\mathcal{B}_g` of a graph, without weights:

    .. math::
        \mathbf{r}_g = \frac{1}{|\mathcal{B}_g|} \sum_{B \in \mathcal{B}_g}
        \max_{i \in B} \mathbf{x}_i

    The balls are those of the first orientation at the tree's coarsest
    level, which is its only one unless it was built with :obj:`strides`.
    For a graph of a single ball this is the maximum over its nodes, for
    balls of one node the mean. Virtual slots do not count; graphs without
    nodes give zeros.

    GraphGym passes features and the vector :obj:`batch.batch`. The tree is
    that of the mini-batch this vector belongs to, if a layer of
    :mod:`torch_geometric_erwin.graphgym` or
    :func:`~torch_geometric_erwin.graphgym.ball_tree` has met it on its way.

    Args:
        x (torch.Tensor): The node features, shape :math:`(N, F)`.
        batch (torch.Tensor): The graph of each node, shape :math:`(N)`;
            may be :obj:`None` with a :obj:`tree`.
        size (int, optional): The number of graphs :math:`B`.
            (default: that of the tree)
        tree (BallTree, optional): The ball tree, in code of your own.
            (default: that of the running forward pass)

    Shapes:
        - **input:** node features :math:`(N, F)`, graphs :math:`(N)`
        - **output:** graph features :math:`(B, F)`

    Raises:
        ValueError: If there is no tree, or it does not fit :obj:`x`,
            :obj:`batch` or :obj:`size`.
    """
    if tree is None:
        tree = _running_tree(batch)
    size = _check(x, batch, size, tree)
    level = tree.num_levels - 1
    ball = tree.ball_of_point(level)
    balls = tree.levels[level].num_slots // tree.levels[level].ball_size

    out = scatter(x, ball, dim=0, dim_size=balls, reduce='max')
    graph = tree.batch.new_zeros(balls).scatter_(0, ball, tree.batch)
    # A tree from elsewhere may have balls of virtual slots alone.
    occupied = x.new_zeros(balls, 1).index_fill_(0, ball, 1.)
    number = scatter(occupied, graph, dim=0, dim_size=size, reduce='sum')
    out = scatter(out, graph, dim=0, dim_size=size, reduce='sum')
    return out / number.clamp(min=1)


def _running_tree(batch: Tensor | None) -> BallTree:
    tree = find_tree(batch)
    if tree is None:
        raise ValueError(
            "Expected 'batch' to be the vector of a mini-batch whose ball "
            "tree is known (got none: choose one of our layers or "
            "'dataset.node_encoder_name: BallTree', call 'ball_tree' of "
            "'torch_geometric_erwin.graphgym' first, or give 'tree')")
    return tree


def _check(x: Tensor, batch: Any, size: int | None, tree: BallTree) -> int:
    check_input(x, tree, -1, None)
    if batch is not None and not torch.equal(batch, tree.batch):
        raise ValueError("Expected 'batch' to be that of 'tree' (got other "
                         "graphs)")
    if size is not None and size < tree.num_clouds:
        raise ValueError(f"Expected 'size' to be at least the number of "
                         f"graphs of 'tree', {tree.num_clouds} (got {size})")
    return tree.num_clouds if size is None else size
