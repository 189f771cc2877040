from typing import Any

import torch
from torch_geometric.graphgym.config import cfg
from torch_geometric.graphgym.register import register_node_encoder
from torch_geometric.nn import Linear

from torch_geometric_erwin.graphgym.config import tree_options
from torch_geometric_erwin.graphgym.forward_pass import ball_tree


@register_node_encoder('BallTree')
class BallTreeEncoder(torch.nn.Module):
    r"""Makes the ball tree of a mini-batch before any layer, and takes
    features through a linear layer (registered as :obj:`BallTree`). With it
    :func:`~torch_geometric_erwin.graphgym.ball_pooling` follows layers of
    any type.

    Args:
        emb_dim (int): Size of each output sample.

    Shapes:
        - **input:** a mini-batch with node features
          :math:`(N, \text{cfg.share.dim\_in})` and positions :math:`(N, D)`
        - **output:** the mini-batch with node features
          :math:`(N, \text{emb\_dim})`
    """
    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.tree_options = tree_options()
        self.lin = Linear(cfg.share.dim_in, emb_dim)

    def forward(self, batch: Any) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            batch (torch_geometric.data.Batch): The mini-batch.

        Raises:
            ValueError: If it has no positions.
        """
        ball_tree(batch, **self.tree_options)
        batch.x = self.lin(batch.x)
        return batch
