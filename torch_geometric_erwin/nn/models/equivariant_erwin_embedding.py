import torch
from torch import Tensor
from torch.nn import Linear
from torch.utils.checkpoint import checkpoint
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.conv import EquivariantMPNNConv
from torch_geometric_erwin.nn.models.erwin_embedding import (
    EmbeddingLinear,
    embedding_edges,
)
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.nn.vectors import check_vectors
from torch_geometric_erwin.tree import BallTree


class EquivariantErwinEmbedding(NotScriptable, torch.nn.Module):
    r"""Linear layers and steps of message passing among near points, on
    scalars and vectors: what
    :class:`~torch_geometric_erwin.nn.ErwinEmbedding` is to scalars.

    Args:
        in_channels (int): Size of each input sample's scalars, or :obj:`-1`
            to derive it from the first input.
        out_channels (int): Size of each output sample, of scalars and of
            vectors.
        steps (int, optional): Number of steps. (default: :obj:`3`)
        in_vectors (int, optional): Number of each input sample's vectors.
            (default: :obj:`0`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        k (int, optional): Number of nearest neighbors that send messages
            where no edges are given. (default: :obj:`16`)
        basis (str, optional): See
            :class:`~torch_geometric_erwin.nn.EquivariantMPNNConv`.
            (default: :obj:`"distance"`)
        num_basis (int, optional): Number of Bessel functions.
            (default: :obj:`8`)
        cutoff (float, optional): Where these vanish.
            (default: :obj:`None`)
        ckpt_grad (bool, optional): If set to :obj:`True`, keeps only what
            goes into each step in training, and computes the step again for
            gradients. (default: :obj:`False`)

    Shapes:
        - **input:**
          scalars :math:`(N, F_{in})`, vectors :math:`(N, D, F_{vec})`, a tree
          of :math:`N` points, edge indices :math:`(2, E)` *(optional)*
        - **output:** scalars :math:`(N, F_{out})`, vectors :math:`(N, D,
          F_{out})`
    """
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        steps: int = 3,
        *,
        in_vectors: int = 0,
        dim: int = 3,
        k: int = 16,
        basis: str = 'distance',
        num_basis: int = 8,
        cutoff: float | None = None,
        ckpt_grad: bool = False,
    ) -> None:
        super().__init__()
        self.in_vectors = in_vectors
        self.dim = dim
        self.k = k
        self.ckpt_grad = ckpt_grad
        self.lin = EmbeddingLinear(in_channels, out_channels)
        self.lin_vec: Linear | None = None
        if in_vectors > 0:
            self.lin_vec = Linear(in_vectors, out_channels, bias=False)
        self.convs = torch.nn.ModuleList([
            EquivariantMPNNConv(out_channels, dim=dim, basis=basis,
                                num_basis=num_basis, cutoff=cutoff)
            for _ in range(steps)
        ])

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.lin.reset_parameters()
        if self.lin_vec is not None:
            self.lin_vec.reset_parameters()
        for conv in self.convs:
            conv.reset_parameters()  # type: ignore[operator]

    def forward(
        self,
        x: Tensor,
        vec: OptTensor,
        tree: BallTree,
        edge_index: OptTensor = None,
        edge_shift: OptTensor = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The scalars of the points.
            vec (torch.Tensor, optional): Their vectors; :obj:`None` for
                zeros.
            tree (BallTree): Their ball tree.
            edge_index (torch.Tensor, optional): Who tells whom.
                (default: :obj:`None`, the nearest neighbors)
            edge_shift (torch.Tensor, optional): The shifts of given edges in
                a periodic cell; see
                :class:`~torch_geometric_erwin.nn.EquivariantMPNNConv`.
                (default: :obj:`None`, the nearest images)
        """
        vec = check_vectors(vec, x, self.dim, self.in_vectors)
        x = self.lin(x)
        vec = None if self.lin_vec is None else self.lin_vec(vec)
        vec = check_vectors(vec, x, self.dim)
        if len(self.convs) == 0:
            return x, vec
        edges = embedding_edges(tree, self.k, edge_index, edge_shift)
        for conv in self.convs:
            args = x, vec, tree, edges
            if self.ckpt_grad:
                x, vec = checkpoint(conv, *args, use_reentrant=False)
            else:
                x, vec = conv(*args)
        return x, vec
