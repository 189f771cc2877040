import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import Linear
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.checks import (
    check_heads,
    check_input,
    check_positive,
)
from torch_geometric_erwin.nn.conv.equivariant_erwin_block import (
    EquivariantErwinBlock,
)
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.nn.vectors import check_vectors
from torch_geometric_erwin.tree import BallTree


class EquivariantErwinConv(NotScriptable, torch.nn.Module):
    r"""Transformer blocks on a ball tree, on scalars and vectors, which turn
    along when positions, and with them the tree, are turned or mirrored: what
    :class:`~torch_geometric_erwin.nn.ErwinConv` is to scalars. In each block,
    the points of a ball attend to each other (see
    :class:`~torch_geometric_erwin.nn.EquivariantBallAttention`).

    Vectors are those of any dimension, and no spherical harmonics are
    needed: as in the `"Equivariant Message Passing for the Prediction of
    Tensorial Properties and Molecular Spectra"
    <https://arxiv.org/abs/2102.03150>`_ paper they are added, scaled by
    scalars and measured.

    Args:
        in_channels (int): Size of each input sample, of scalars and of
            vectors, or :obj:`-1` to derive it from the first input.
        out_channels (int): Size of each output sample, likewise, all heads
            together.
        heads (int, optional): Number of attention heads; divides
            :obj:`out_channels`. (default: :obj:`1`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        depth (int, optional): Number of blocks. (default: :obj:`2`)
        partition (int, optional): Which of the tree's orientations the first
            block attends in; see :class:`~torch_geometric_erwin.nn.ErwinConv`.
            (default: :obj:`0`)
        mlp_ratio (int, optional): Hidden size of the feed-forward networks,
            in units of :obj:`out_channels`. (default: :obj:`4`)
        bias (str, optional): How distances enter; see
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`"distance"`)
        signed (bool, optional): See
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`False`)
        dropout (float, optional): Dropout probability of attention weights
            and of the feed-forward networks' hidden samples.
            (default: :obj:`0.`)
        ckpt_grad (bool, optional): If set to :obj:`True`, keeps only what
            goes into each block in training, and computes the block again
            for gradients: less memory, more time.
            (default: :obj:`False`)

    Shapes:
        - **input:**
          scalars :math:`(N, F_{in})`, vectors :math:`(N, D, F_{in})`, a tree
          of :math:`N` points
        - **output:** scalars :math:`(N, F_{out})`, vectors :math:`(N, D,
          F_{out})`
    """
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *,
        dim: int = 3,
        depth: int = 2,
        partition: int = 0,
        mlp_ratio: int = 4,
        bias: str | None = 'distance',
        signed: bool = False,
        dropout: float = 0.,
        ckpt_grad: bool = False,
    ) -> None:
        super().__init__()
        if in_channels != -1:
            check_positive('in_channels', in_channels)
        check_heads(out_channels, heads)
        check_positive('depth', depth, 0)
        check_positive('mlp_ratio', mlp_ratio)

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.dim = dim
        self.depth = depth
        self.partition = partition
        self.ckpt_grad = ckpt_grad

        self.lin: Linear | None = None
        self.lin_vec: Linear | None = None
        if in_channels != out_channels:
            self.lin = Linear(in_channels, out_channels)
            self.lin_vec = Linear(in_channels, out_channels, bias=False)
        self.blocks = torch.nn.ModuleList([
            EquivariantErwinBlock(out_channels, heads, dim=dim,
                                  mlp_ratio=mlp_ratio, bias=bias,
                                  signed=signed, dropout=dropout)
            for _ in range(depth)
        ])

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for lin in (self.lin, self.lin_vec):
            if lin is not None:
                lin.reset_parameters()
        for module in self.blocks:
            module.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor, vec: OptTensor, tree: BallTree,
                offsets: OptTensor = None) -> tuple[Tensor, Tensor]:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The scalars of the points.
            vec (torch.Tensor, optional): Their vectors; :obj:`None` for
                zeros.
            tree (BallTree): Their ball tree.
            offsets (torch.Tensor, optional): What :obj:`tree.offsets(None)`
                returns, if it is at hand. (default: :obj:`None`)

        Raises:
            ValueError: If features and tree do not fit each other or the
                layer.
        """
        check_input(x, tree, self.in_channels, self.dim)
        vec = check_vectors(vec, x, self.dim)
        if tree.virtual == 'copy':
            tree, index, inverse = tree.in_slot_order()
            x, vec = self.forward(x[index], vec[index], tree)
            return x[inverse], vec[inverse]
        if self.lin is not None and self.lin_vec is not None:
            x, vec = self.lin(x), self.lin_vec(vec)
        if offsets is None:
            offsets = tree.offsets(None)
        for i, block in enumerate(self.blocks, self.partition):
            i = i % tree.num_orientations
            args = x, vec, tree, i, offsets[i]
            if self.ckpt_grad:
                x, vec = checkpoint(block, *args, use_reentrant=False)
            else:
                x, vec = block(*args)
        return x, vec

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, '
                f'{self.out_channels}, heads={self.heads}, '
                f'depth={self.depth})')
