import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import Linear

from torch_geometric_erwin.nn.checks import (
    check_heads,
    check_input,
    check_positive,
)
from torch_geometric_erwin.nn.conv.erwin_block import ErwinBlock
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.tree import BallTree


class ErwinConv(NotScriptable, torch.nn.Module):
    r"""Transformer blocks on a ball tree, from the `"Erwin: A Tree-based
    Hierarchical Transformer for Large-scale Physical Systems"
    <https://arxiv.org/abs/2502.17019>`_ paper: in each, the points of a ball
    attend to each other.

    Blocks take the orientations of the tree in turn, so that from the second
    on information crosses the borders of balls (equation 11). Called as
    :obj:`conv(x, tree)` with features in the order of the points, the layer
    mixes with those of message passing.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive
            it from the first input.
        out_channels (int): Size of each output sample, all heads together.
        heads (int, optional): Number of attention heads; divides
            :obj:`out_channels`. (default: :obj:`1`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        depth (int, optional): Number of blocks. (default: :obj:`2`)
        partition (int, optional): Which of the tree's orientations the first
            block attends in; counted modulo their number. Give the layers of
            a stack with an odd :obj:`depth` different ones.
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
          point features :math:`(N, F_{in})`, a tree of :math:`N` points
        - **output:** point features :math:`(N, F_{out})`
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
        if in_channels != out_channels:
            self.lin = Linear(in_channels, out_channels)
        self.blocks = torch.nn.ModuleList([
            ErwinBlock(out_channels, heads, dim=dim, mlp_ratio=mlp_ratio,
                       bias=bias, signed=signed, dropout=dropout)
            for _ in range(depth)
        ])

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        if self.lin is not None:
            self.lin.reset_parameters()
        for module in self.blocks:
            module.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor, tree: BallTree,
                offsets: Tensor | None = None) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
            tree (BallTree): Their ball tree.
            offsets (torch.Tensor, optional): What :obj:`tree.offsets(None)`
                returns, if it is at hand. (default: :obj:`None`)

        Raises:
            ValueError: If features and tree do not fit each other or the
                layer.
        """
        check_input(x, tree, self.in_channels, self.dim)
        if tree.virtual == 'copy':
            tree, index, inverse = tree.in_slot_order()
            return self.forward(x[index], tree)[inverse]
        if self.lin is not None:
            x = self.lin(x)
        if offsets is None:
            offsets = tree.offsets(None)
        for i, block in enumerate(self.blocks, self.partition):
            i = i % tree.num_orientations
            args = x, tree, i, offsets[i]
            if self.ckpt_grad:
                x = checkpoint(block, *args, use_reentrant=False)
            else:
                x = block(*args)
        return x

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, '
                f'{self.out_channels}, heads={self.heads}, '
                f'depth={self.depth})')
