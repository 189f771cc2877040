from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import Linear

from torch_geometric_erwin.nn.checks import (
    check_coarse_tree,
    check_input,
    check_pooling,
    check_stride,
)
from torch_geometric_erwin.nn.norm import CloudNorm
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.tree import BallTree


class BallUnpooling(NotScriptable, torch.nn.Module):
    r"""Brings features of a coarsened point cloud back to its points, from
    the `"Erwin: A Tree-based Hierarchical Transformer for Large-scale
    Physical Systems" <https://arxiv.org/abs/2502.17019>`_ paper (equation
    13):

    .. math::
        \mathbf{x}^{\prime}_i = \textrm{Norm} \left( \mathbf{x}_i +
        \mathbf{W}_{s(i)} \left[ \mathbf{x}_B, \bigoplus_{j \in B}
        (\mathbf{p}_j - \mathbf{c}_B) \right] \right)

    with one matrix for each slot :math:`s` of the :obj:`stride` slots that
    make a coarse point. Inverts
    :class:`~torch_geometric_erwin.nn.BallPooling`.

    Args:
        in_channels (int): Size of each coarse sample, or :obj:`-1` to derive
            it from the first input.
        out_channels (int): Size of each output sample, and of each sample of
            the points before.
        stride (int): The number of slots that were pooled.
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        norm (str or Callable, optional): The normalization function, over
            the points. (default: :obj:`"batch_norm"`)
        norm_kwargs (Dict[str, Any], optional): Its arguments.
            (default: :obj:`None`)

    Shapes:
        - **input:**
          coarse features :math:`(M, F_{in})`, the coarse tree of :math:`M`
          points, point features :math:`(N, F_{out})`, the tree of :math:`N`
          points
        - **output:** point features :math:`(N, F_{out})`
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

        self.lin = Linear(in_channels, stride * out_channels)
        self.lin_pos = Linear(stride * dim, stride * out_channels, bias=False)
        self.norm = CloudNorm(norm, out_channels, norm_kwargs)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.lin.reset_parameters()
        self.lin_pos.reset_parameters()
        self.norm.reset_parameters()

    def forward(
        self,
        x: Tensor,
        coarse_tree: BallTree,
        x_skip: Tensor,
        tree: BallTree,
    ) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the coarse points.
            coarse_tree (BallTree): Their ball tree, that of
                :obj:`tree.coarsen()`.
            x_skip (torch.Tensor): The features of the points before they
                were pooled.
            tree (BallTree): Their ball tree.

        Raises:
            ValueError: If features and trees do not fit each other or the
                layer.
        """
        check_input(x, coarse_tree, self.in_channels, self.dim,
                    tree_name='coarse_tree')
        check_input(x_skip, tree, self.out_channels, self.dim, 'x_skip')
        check_stride(tree, self.stride)
        check_coarse_tree(coarse_tree, tree)
        if tree.virtual == 'copy':
            tree, index, inverse = tree.in_slot_order()
            out = self.forward(x, coarse_tree, x_skip[index], tree)
            return out[inverse]

        offset = tree.child_offsets().to(x.dtype)
        out = self.lin(x) + self.lin_pos(offset.flatten(1))
        out = out.unflatten(1, (self.stride, -1))
        slot = tree.levels[0].inverse[0] % self.stride
        return self.norm(x_skip + out[tree.cluster(), slot], tree)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, '
                f'{self.out_channels}, stride={self.stride})')
