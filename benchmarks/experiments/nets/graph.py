r"""The graph of nearest neighbors, that of a mesh, or both."""

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import coalesce

from torch_geometric_erwin import knn_graph
from torch_geometric_erwin.ops.periodic import nearest_image


def neighbor_graph(data: Batch, k: int, loop: bool = False) -> Tensor:
    r"""Connects each point to its nearest ones, shape :math:`(2, E)`."""
    box = data.box if 'box' in data else None
    return knn_graph(data.pos, k, data.batch, loop,
                     batch_size=data.num_graphs, box=box)


def mesh_graph(data: Batch, k: int) -> Tensor:
    r"""Connects points as the mesh does, where there is one, and each point
    to its :obj:`k` nearest ones, across gaps of the mesh, too: every pair
    once, shape :math:`(2, E)`.

    Raises:
        ValueError: If there is no mesh and :obj:`k` is zero.
    """
    if 'edge_index' not in data:
        if k == 0:
            raise ValueError("Expected 'k' to be positive where there is no "
                             "mesh (got 0)")
        return neighbor_graph(data, k)
    if k == 0:
        return data.edge_index
    both = torch.cat([data.edge_index, neighbor_graph(data, k)], dim=1)
    return coalesce(both, num_nodes=data.num_nodes)


def relative_positions(data: Batch, edge_index: Tensor) -> Tensor:
    r"""Returns where sources are as seen from targets, shape
    :math:`(E, D)`.
    """
    source, target = edge_index
    box = data.box[data.batch[target]] if 'box' in data else None
    return nearest_image(data.pos[source] - data.pos[target], box)
