from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Dropout, Linear, Sequential
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import Adj

from torch_geometric_erwin.nn.attention import BallAttention
from torch_geometric_erwin.nn.checks import check_dropout, check_input
from torch_geometric_erwin.nn.norm import CloudNorm
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.tree import BallTree


class ErwinGPSConv(NotScriptable, torch.nn.Module):
    r"""The general, powerful, scalable (GPS) graph transformer layer from the
    `"Recipe for a General, Powerful, Scalable Graph Transformer"
    <https://arxiv.org/abs/2205.12454>`_ paper, with attention within balls
    from the `"Erwin: A Tree-based Hierarchical Transformer for Large-scale
    Physical Systems" <https://arxiv.org/abs/2502.17019>`_ paper in place of
    attention among all nodes: linear in the number of nodes, where that of
    :class:`torch_geometric.nn.conv.GPSConv` is quadratic.

    Message passing on the graph and attention run side by side:

    .. math::
        \mathbf{h} &= \textrm{Norm}(\mathbf{x} + \textrm{Conv}(\mathbf{x},
        \mathcal{E})) + \textrm{Norm}(\mathbf{x} +
        \textrm{BallAttention}(\mathbf{x}))

        \mathbf{x}^{\prime} &= \textrm{Norm}(\mathbf{h} +
        \textrm{MLP}(\mathbf{h}))

    Heads share the tree's orientations, so that information crosses the
    borders of balls in a stack of layers; see
    :class:`~torch_geometric_erwin.nn.BallAttention`.

    Args:
        channels (int): Size of each input and output sample.
        conv (MessagePassing, optional): The local message-passing layer.
        heads (int, optional): Number of attention heads; divides
            :obj:`channels`. (default: :obj:`1`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        partition (int, optional): Which of the tree's orientations all heads
            attend in, counted modulo their number: it should change from one
            layer to the next. (default: :obj:`None`, heads share them)
        bias (str, optional): How distances enter; see
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`"distance"`)
        dropout (float, optional): Dropout probability of intermediate
            embeddings. (default: :obj:`0.`)
        act (str or Callable, optional): The non-linear activation function.
            (default: :obj:`"relu"`)
        act_kwargs (Dict[str, Any], optional): Its arguments.
            (default: :obj:`None`)
        norm (str or Callable, optional): The normalization function.
            (default: :obj:`"batch_norm"`)
        norm_kwargs (Dict[str, Any], optional): Its arguments.
            (default: :obj:`None`)
        attn_kwargs (Dict[str, Any], optional): Further arguments of
            :class:`~torch_geometric_erwin.nn.BallAttention`.
            (default: :obj:`None`)

    Shapes:
        - **input:**
          node features :math:`(N, C)`, edge indices :math:`(2, E)`, a tree
          of :math:`N` points
        - **output:** node features :math:`(N, C)`
    """
    def __init__(
        self,
        channels: int,
        conv: MessagePassing | None,
        heads: int = 1,
        *,
        dim: int = 3,
        partition: int | None = None,
        bias: str | None = 'distance',
        dropout: float = 0.,
        act: Any = 'relu',
        act_kwargs: dict[str, Any] | None = None,
        norm: Any = 'batch_norm',
        norm_kwargs: dict[str, Any] | None = None,
        attn_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        self.channels = channels
        self.conv = conv
        self.heads = heads
        self.dim = dim
        self.partition = partition
        self.dropout = dropout

        self.attn = BallAttention(channels, heads, dim=dim, bias=bias,
                                  **(attn_kwargs or {}))
        self.mlp = Sequential(
            Linear(channels, channels * 2),
            activation_resolver(act, **(act_kwargs or {})),
            Dropout(dropout),
            Linear(channels * 2, channels),
            Dropout(dropout),
        )
        self.norm1 = CloudNorm(norm, channels, norm_kwargs)
        self.norm2 = CloudNorm(norm, channels, norm_kwargs)
        self.norm3 = CloudNorm(norm, channels, norm_kwargs)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        if self.conv is not None:
            self.conv.reset_parameters()
        self.attn.reset_parameters()
        reset(self.mlp)
        for norm in (self.norm1, self.norm2, self.norm3):
            norm.reset_parameters()

    def forward(self, x: Tensor, edge_index: Adj, tree: BallTree,
                **kwargs: Any) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The node features.
            edge_index (torch.Tensor or SparseTensor): The edges of the local
                layer.
            tree (BallTree): The ball tree of the nodes' positions.
            **kwargs (optional): Additional arguments of the local layer.

        Raises:
            ValueError: If features and tree do not fit each other or the
                layer.
        """
        check_input(x, tree, self.channels, self.dim)
        partition = self.partition
        if partition is not None:
            partition %= tree.num_orientations
        h = self.attn(x, tree, partition)
        h = F.dropout(h, p=self.dropout, training=self.training)
        out = self.norm2(h + x, tree)
        if self.conv is not None:
            h = self.conv(x, edge_index, **kwargs)
            h = F.dropout(h, p=self.dropout, training=self.training)
            out = out + self.norm1(h + x, tree)
        return self.norm3(out + self.mlp(out), tree)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.channels}, '
                f'conv={self.conv}, heads={self.heads})')
