from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import Linear

from torch_geometric_erwin.nn.conv import MPNNConv
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.tree import BallTree, TreeEdges


class EmbeddingLinear(Linear):
    r"""Begins as all layers of the model do, also where the first input tells
    its size.
    """
    def reset_parameters(self) -> None:
        if self.in_channels > 0:
            torch.nn.init.trunc_normal_(self.weight, std=0.02)
            if self.bias is not None:
                torch.nn.init.zeros_(self.bias)


class ErwinEmbedding(NotScriptable, torch.nn.Module):
    r"""A linear layer and steps of message passing among near points
    (equation 14), which tell points apart before they attend to each other.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive
            it from the first input.
        out_channels (int): Size of each output sample.
        steps (int, optional): Number of steps. (default: :obj:`3`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        k (int, optional): Number of nearest neighbors that send messages
            where no edges are given. (default: :obj:`16`)
        basis (str, optional): See
            :class:`~torch_geometric_erwin.nn.MPNNConv`.
            (default: :obj:`"position"`)
        num_basis (int, optional): Number of Bessel functions.
            (default: :obj:`8`)
        cutoff (float, optional): Where these vanish.
            (default: :obj:`None`)
        ckpt_grad (bool, optional): If set to :obj:`True`, keeps only what
            goes into each step in training, and computes the step again for
            gradients. (default: :obj:`False`)

    Shapes:
        - **input:**
          point features :math:`(N, F_{in})`, a tree of :math:`N` points,
          edge indices :math:`(2, E)` *(optional)*
        - **output:** point features :math:`(N, F_{out})`
    """
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        steps: int = 3,
        *,
        dim: int = 3,
        k: int = 16,
        basis: str = 'position',
        num_basis: int = 8,
        cutoff: float | None = None,
        ckpt_grad: bool = False,
    ) -> None:
        super().__init__()
        self.k = k
        self.ckpt_grad = ckpt_grad
        self.lin = EmbeddingLinear(in_channels, out_channels)
        self.convs = torch.nn.ModuleList([
            MPNNConv(out_channels, dim=dim, basis=basis, num_basis=num_basis,
                     cutoff=cutoff) for _ in range(steps)
        ])

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.lin.reset_parameters()
        for conv in self.convs:
            conv.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor, tree: BallTree,
                edge_index: Tensor | None = None,
                edge_shift: Tensor | None = None) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
            tree (BallTree): Their ball tree.
            edge_index (torch.Tensor, optional): Who tells whom.
                (default: :obj:`None`, the nearest neighbors)
            edge_shift (torch.Tensor, optional): The shifts of given edges in
                a periodic cell; see
                :class:`~torch_geometric_erwin.nn.MPNNConv`.
                (default: :obj:`None`, the nearest images)
        """
        x = self.lin(x)
        if len(self.convs) == 0:
            return x
        edges = embedding_edges(tree, self.k, edge_index, edge_shift)
        for conv in self.convs:
            if self.ckpt_grad:
                x = checkpoint(conv, x, edges, tree, use_reentrant=False)
            else:
                x = conv(x, edges, tree)
        return x


def embedding_edges(tree: BallTree, k: int, edge_index: Tensor | None,
                    edge_shift: Tensor | None) -> TreeEdges:
    r"""Returns the given edges, or those from the nearest neighbors."""
    if edge_index is None:
        tree = replace(tree, image=None)  # shifts are the tree's own
        edge_index, edge_shift = tree.knn_graph(k, return_shift=True)
    return tree.edges(edge_index, edge_shift)
