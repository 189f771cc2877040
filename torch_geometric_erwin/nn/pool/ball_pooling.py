from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import Linear
from torch_geometric.utils import coalesce, remove_self_loops

from torch_geometric_erwin.nn.checks import (
    check_edge_index,
    check_input,
    check_pooling,
    check_stride,
)
from torch_geometric_erwin.nn.norm import CloudNorm
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.tree import BallTree


class BallPooling(NotScriptable, torch.nn.Module):
    r"""Coarsens a point cloud along its ball tree, from the `"Erwin: A
    Tree-based Hierarchical Transformer for Large-scale Physical Systems"
    <https://arxiv.org/abs/2502.17019>`_ paper (equation 12):

    .. math::
        \mathbf{x}^{\prime}_B = \textrm{Norm} \left( \mathbf{W}
        \bigoplus_{i \in B} [\mathbf{x}_i, \mathbf{p}_i - \mathbf{c}_B]
        \right)

    A coarse point stands for the points :math:`i` in :obj:`stride`
    neighboring slots, at their center of mass :math:`\mathbf{c}_B`. Virtual
    slots add nothing.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive
            it from the first input.
        out_channels (int): Size of each output sample.
        stride (int): The number of slots to pool: that of the tree. With a
            stride of :obj:`1` nothing is pooled, and features pass as they
            are if the channels agree.
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        norm (str or Callable, optional): The normalization function, over
            the coarse points. (default: :obj:`"batch_norm"`)
        norm_kwargs (Dict[str, Any], optional): Its arguments.
            (default: :obj:`None`)

    Shapes:
        - **input:**
          point features :math:`(N, F_{in})`, a tree of :math:`N` points
          *(optional: edge indices* :math:`(2, E)` *)*
        - **output:** coarse features :math:`(M, F_{out})`, the coarse tree
          of :math:`M` points *(if edges are given: coarse edge indices*
          :math:`(2, E^{\prime})` *)*
    """
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        dim: int = 3,
        norm: Any = 'batch_norm',
        norm_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_pooling(in_channels, out_channels, stride, dim)

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.dim = dim

        self.lin = self.lin_pos = self.norm = None
        if stride > 1 or in_channels != out_channels:
            width = in_channels if in_channels == -1 else stride * in_channels
            self.lin = Linear(width, out_channels)
            self.lin_pos = Linear(stride * dim, out_channels, bias=False)
            self.norm = CloudNorm(norm, out_channels, norm_kwargs)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for module in (self.lin, self.lin_pos, self.norm):
            if module is not None:
                module.reset_parameters()

    def forward(
        self,
        x: Tensor,
        tree: BallTree,
        edge_index: Tensor | None = None,
    ) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
            tree (BallTree): Their ball tree.
            edge_index (torch.Tensor, optional): The edges of a graph of the
                points. Given these, the layer returns those of the coarse
                points, too: between different points, each once.
                (default: :obj:`None`)

        Raises:
            ValueError: If features and tree do not fit each other or the
                layer.
        """
        check_input(x, tree, self.in_channels, self.dim)
        check_stride(tree, self.stride)
        if tree.virtual == 'copy':
            if edge_index is not None:
                raise ValueError("Expected 'tree' to have virtual='masked' "
                                 "in order to carry 'edge_index' along (got "
                                 "'copy')")
            tree, index, _ = tree.in_slot_order()
            return self.forward(x[index], tree)

        coarse = tree.coarsen()
        out = self._pool(x, tree, coarse)
        if edge_index is None:
            return out, coarse
        check_edge_index(edge_index)
        edges, _ = remove_self_loops(tree.cluster()[edge_index])
        return out, coarse, coalesce(edges, num_nodes=coarse.num_points)

    def _pool(self, x: Tensor, tree: BallTree, coarse: BallTree) -> Tensor:
        index, mask = tree.children()
        x = x[index]
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        if self.lin is None or self.lin_pos is None or self.norm is None:
            return x.squeeze(1)
        offset = tree.child_offsets().to(x.dtype)
        out = self.lin(x.flatten(1)) + self.lin_pos(offset.flatten(1))
        return self.norm(out, coarse)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, '
                f'{self.out_channels}, stride={self.stride})')
