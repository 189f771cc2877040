r"""The graph of nearest neighbors, or that of a mesh."""

from torch import Tensor
from torch_geometric.data import Batch

from torch_geometric_erwin import knn_graph
from torch_geometric_erwin.ops.periodic import nearest_image


def neighbor_graph(data: Batch, k: int, loop: bool = False) -> Tensor:
    r"""Connects each point to its nearest ones, shape :math:`(2, E)`."""
    box = data.box if 'box' in data else None
    return knn_graph(data.pos, k, data.batch, loop,
                     batch_size=data.num_graphs, box=box)


def mesh_graph(data: Batch, k: int) -> Tensor:
    r"""Returns the edges of the mesh where there is one, or else connects
    each point to its nearest ones, shape :math:`(2, E)`.
    """
    return (data.edge_index if 'edge_index' in data
            else neighbor_graph(data, k))


def relative_positions(data: Batch, edge_index: Tensor) -> Tensor:
    r"""Returns where sources are as seen from targets, shape
    :math:`(E, D)`.
    """
    source, target = edge_index
    box = data.box[data.batch[target]] if 'box' in data else None
    return nearest_image(data.pos[source] - data.pos[target], box)
