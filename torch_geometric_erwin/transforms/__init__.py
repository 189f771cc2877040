r"""PyG transforms that build ball trees and graphs on them."""

from torch_geometric_erwin.transforms.add_ball_graph import AddBallGraph
from torch_geometric_erwin.transforms.add_ball_tree import AddBallTree

__all__ = ['AddBallGraph', 'AddBallTree']
