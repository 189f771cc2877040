r"""PyG transforms that build ball trees and graphs on them, and that give
positions to graphs.
"""

from torch_geometric_erwin.transforms.add_ball_graph import AddBallGraph
from torch_geometric_erwin.transforms.add_ball_tree import AddBallTree
from torch_geometric_erwin.transforms.add_laplacian_pos import AddLaplacianPos
from torch_geometric_erwin.transforms.add_random_walk_pos import (
    AddRandomWalkPos,
)

__all__ = [
    'AddBallGraph',
    'AddBallTree',
    'AddLaplacianPos',
    'AddRandomWalkPos',
]
