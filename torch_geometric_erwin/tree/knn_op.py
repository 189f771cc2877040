r"""The neighbors of a tree's points as a torch operator, opaque to the
compiler.
"""

import torch
from torch import Tensor

from torch_geometric_erwin.tree.neighbors import tree_neighbors


@torch.library.custom_op('torch_geometric_erwin::knn_graph', mutates_args=())
def tree_knn_graph(pos: Tensor, batch: Tensor, k: int, loop: bool,
                   num_clouds: int,
                   box: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Returns the edges, shape :math:`(2, E)`, and the shifts of their
    images, shape :math:`(E, D)`; see
    :func:`torch_geometric_erwin.knn_graph`.
    """
    if pos.size(0) == 0:
        return batch.new_empty(2, 0), batch.new_empty(0, pos.size(1))
    return tree_neighbors(pos, k, batch, loop, num_clouds, box)


@tree_knn_graph.register_fake
def _fake(pos: Tensor, batch: Tensor, k: int, loop: bool, num_clouds: int,
          box: Tensor | None) -> tuple[Tensor, Tensor]:
    num_edges = torch.library.get_ctx().new_dynamic_size()
    return (batch.new_empty(2, num_edges),
            batch.new_empty(num_edges, pos.size(1)))
