r"""Pictures of ball trees, receptive fields and attention weights."""

from torch_geometric_erwin.visualization.plot_attention import plot_attention
from torch_geometric_erwin.visualization.plot_ball_tree import plot_ball_tree
from torch_geometric_erwin.visualization.plot_receptive_field import (
    plot_receptive_field,
)

__all__ = ['plot_attention', 'plot_ball_tree', 'plot_receptive_field']
