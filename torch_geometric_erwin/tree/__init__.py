r"""The ball tree, the structure that every layer works on."""

from torch_geometric_erwin.tree.ball_tree import BallTree
from torch_geometric_erwin.tree.edges import TreeEdges
from torch_geometric_erwin.tree.neighbors import (
    knn,
    knn_graph,
    radius,
    radius_graph,
)
from torch_geometric_erwin.tree.pytree import register
from torch_geometric_erwin.tree.structure import Level, Partition

register()

__all__ = [
    'BallTree',
    'Level',
    'Partition',
    'TreeEdges',
    'knn',
    'knn_graph',
    'radius',
    'radius_graph',
]
