r"""Erwin's ball-tree attention as PyTorch Geometric layers."""

from torch_geometric_erwin.nn import (
    BallAttention,
    BallPooling,
    BallUnpooling,
    EquivariantBallAttention,
    EquivariantBallPooling,
    EquivariantBallUnpooling,
    EquivariantErwinConv,
    EquivariantErwinTransformer,
    EquivariantMPNNConv,
    ErwinConv,
    ErwinGPSConv,
    ErwinTransformer,
)
from torch_geometric_erwin.tree import (
    BallTree,
    knn,
    knn_graph,
    radius,
    radius_graph,
)

__version__ = '0.1.0'

__all__ = [
    'BallAttention',
    'BallPooling',
    'BallTree',
    'BallUnpooling',
    'EquivariantBallAttention',
    'EquivariantBallPooling',
    'EquivariantBallUnpooling',
    'EquivariantErwinConv',
    'EquivariantErwinTransformer',
    'EquivariantMPNNConv',
    'ErwinConv',
    'ErwinGPSConv',
    'ErwinTransformer',
    '__version__',
    'knn',
    'knn_graph',
    'radius',
    'radius_graph',
]
