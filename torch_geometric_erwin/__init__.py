r"""Erwin's ball-tree attention as PyTorch Geometric layers."""

from torch_geometric_erwin.tree import (
    BallTree,
    knn,
    knn_graph,
    radius,
    radius_graph,
)

__version__ = '0.1.0'

__all__ = [
    'BallTree',
    '__version__',
    'knn',
    'knn_graph',
    'radius',
    'radius_graph',
]
