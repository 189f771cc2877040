r"""Networks to compare, all called with a batch of graphs."""

from benchmarks.graphs.nets.graph_net import GraphNet
from benchmarks.graphs.nets.layers import (
    GAT,
    GCN,
    GIN,
    GPS,
    ErwinGPS,
    Hybrid,
)

__all__ = ['GAT', 'GCN', 'GIN', 'GPS', 'ErwinGPS', 'GraphNet', 'Hybrid']
