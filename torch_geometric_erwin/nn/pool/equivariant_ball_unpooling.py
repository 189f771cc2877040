from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import Linear
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.checks import (
    check_coarse_tree,
    check_input,
    check_pooling,
    check_stride,
)
from torch_geometric_erwin.nn.norm import CloudNorm
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.nn.vectors import check_vectors
from torch_geometric_erwin.ops.distance import length
from torch_geometric_erwin.tree import BallTree


class EquivariantBallUnpooling(NotScriptable, torch.nn.Module):
    r"""Brings scalars :math:`\mathbf{x}` and vectors
    :math:`\vec{\mathbf{v}}` of a coarsened point cloud back to its points,
    such that vectors turn along when positions, and with them the tree, are
    turned or mirrored. With :math:`\vec{\mathbf{o}}_i = \mathbf{p}_i -
    \mathbf{c}_B`,

    .. math::
        \mathbf{x}^{\prime}_i &= \textrm{Norm} \big( \mathbf{x}_i +
        \mathbf{W} \mathbf{x}_B + \mathbf{a} \| \vec{\mathbf{o}}_i \| +
        \mathbf{b} + (\mathbf{U}_1 \vec{\mathbf{v}}_B) \cdot
        \vec{\mathbf{o}}_i \big)

        \vec{\mathbf{v}}^{\prime}_i &= \vec{\mathbf{v}}_i + \mathbf{U}_2
        \vec{\mathbf{v}}_B + (\mathbf{W}_o \mathbf{x}_B) \,
        \vec{\mathbf{o}}_i

    All points of a ball share the weights, whichever slot they are in: it is
    where they lie that tells them apart. Inverts
    :class:`~torch_geometric_erwin.nn.EquivariantBallPooling`.

    Args:
        in_channels (int): Size of each coarse sample, of scalars and of
            vectors, or :obj:`-1` to derive it from the first input.
        out_channels (int): Size of each output sample, likewise, and of each
            sample of the points before.
        stride (int): The number of slots that were pooled.
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        norm (str or Callable, optional): The normalization function, over
            the scalars of the points. (default: :obj:`"batch_norm"`)
        norm_kwargs (Dict[str, Any], optional): Its arguments.
            (default: :obj:`None`)

    Shapes:
        - **input:**
          coarse scalars :math:`(M, F_{in})`, coarse vectors :math:`(M, D,
          F_{in})`, the coarse tree of :math:`M` points, scalars :math:`(N,
          F_{out})`, vectors :math:`(N, D, F_{out})`, the tree of :math:`N`
          points
        - **output:** scalars :math:`(N, F_{out})`, vectors :math:`(N, D,
          F_{out})`
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

        self.lin = Linear(in_channels, 2 * out_channels)
        self.lin_pos = Linear(1, out_channels, bias=False)
        self.lin_vec = Linear(in_channels, 2 * out_channels, bias=False)
        self.norm = CloudNorm(norm, out_channels, norm_kwargs)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for module in (self.lin, self.lin_pos, self.lin_vec, self.norm):
            module.reset_parameters()

    def forward(
        self,
        x: Tensor,
        vec: OptTensor,
        coarse_tree: BallTree,
        x_skip: Tensor,
        vec_skip: OptTensor,
        tree: BallTree,
    ) -> tuple[Tensor, Tensor]:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The scalars of the coarse points.
            vec (torch.Tensor, optional): Their vectors; :obj:`None` for
                zeros.
            coarse_tree (BallTree): Their ball tree, that of
                :obj:`tree.coarsen()`.
            x_skip (torch.Tensor): The scalars of the points before they were
                pooled.
            vec_skip (torch.Tensor, optional): Their vectors; :obj:`None` for
                zeros.
            tree (BallTree): Their ball tree.

        Raises:
            ValueError: If features and trees do not fit each other or the
                layer.
        """
        check_input(x, coarse_tree, self.in_channels, self.dim,
                    tree_name='coarse_tree')
        check_input(x_skip, tree, self.out_channels, self.dim, 'x_skip')
        vec = check_vectors(vec, x, self.dim)
        vec_skip = check_vectors(vec_skip, x_skip, self.dim, name='vec_skip')
        check_stride(tree, self.stride)
        check_coarse_tree(coarse_tree, tree)
        if tree.virtual == 'copy':
            tree, index, inverse = tree.in_slot_order()
            out, vec = self.forward(x, vec, coarse_tree, x_skip[index],
                                    vec_skip[index], tree)
            return out[inverse], vec[inverse]

        ball = tree.cluster()
        slot = tree.levels[0].inverse[0] % self.stride
        offset = tree.child_offsets()[ball, slot]
        far = self.lin_pos(length(offset).unsqueeze(1).to(x.dtype))
        offset = offset.to(x.dtype).unsqueeze(2)
        x, weight = self.lin(x).index_select(0, ball).chunk(2, dim=1)
        vec, along = self.lin_vec(vec).index_select(0, ball).chunk(2, dim=2)
        out = x_skip + x + far + (along * offset).sum(1)
        vec = torch.addcmul(vec_skip + vec, offset, weight.unsqueeze(1))
        return self.norm(out, tree), vec

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, '
                f'{self.out_channels}, stride={self.stride})')
