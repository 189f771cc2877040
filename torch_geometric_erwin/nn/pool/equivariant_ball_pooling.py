from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import Linear
from torch_geometric.typing import OptTensor
from torch_geometric.utils import coalesce, remove_self_loops

from torch_geometric_erwin.nn.checks import (
    check_edge_index,
    check_input,
    check_pooling,
    check_stride,
)
from torch_geometric_erwin.nn.norm import CloudNorm
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.nn.vectors import check_vectors
from torch_geometric_erwin.ops.distance import length
from torch_geometric_erwin.tree import BallTree


class EquivariantBallPooling(NotScriptable, torch.nn.Module):
    r"""Coarsens a point cloud with scalars :math:`\mathbf{x}` and vectors
    :math:`\vec{\mathbf{v}}` along its ball tree, such that vectors turn along
    when positions, and with them the tree, are turned or mirrored. With
    :math:`\vec{\mathbf{o}}_i = \mathbf{p}_i - \mathbf{c}_B`,

    .. math::
        \mathbf{h}_i &= \textrm{GELU}(\mathbf{A} \mathbf{x}_i + \mathbf{a} \|
        \vec{\mathbf{o}}_i \| + \mathbf{b}), \qquad
        \vec{\mathbf{w}}_i = \mathbf{U} \vec{\mathbf{v}}_i

        \mathbf{x}^{\prime}_B &= \textrm{Norm} \Big( \underset{i \in
        B}{\textrm{mean}} \big( \mathbf{W} \mathbf{x}_i + \mathbf{W}_h
        \mathbf{h}_i \big) \Big)

        \vec{\mathbf{v}}^{\prime}_B &= \underset{i \in B}{\textrm{mean}}
        \big( \vec{\mathbf{w}}_i + \mathbf{U}_o [\mathbf{h}_i \odot
        \vec{\mathbf{w}}_i, \mathbf{h}_i \, \vec{\mathbf{o}}_i] \big)

    A coarse point stands for the points :math:`i` in :obj:`stride`
    neighboring slots, at their center of mass :math:`\mathbf{c}_B`. Other
    than in :class:`~torch_geometric_erwin.nn.BallPooling`, the order of these
    slots does not matter: where points lie symmetrically, nothing that turns
    along could tell one from another. Virtual slots add nothing.

    Args:
        in_channels (int): Size of each input sample, of scalars and of
            vectors, or :obj:`-1` to derive it from the first input.
        out_channels (int): Size of each output sample, likewise.
        stride (int): The number of slots to pool: that of the tree. With a
            stride of :obj:`1` nothing is pooled, and features pass as they
            are if the channels agree.
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        norm (str or Callable, optional): The normalization function, over
            the scalars of the coarse points. (default: :obj:`"batch_norm"`)
        norm_kwargs (Dict[str, Any], optional): Its arguments.
            (default: :obj:`None`)

    Shapes:
        - **input:**
          scalars :math:`(N, F_{in})`, vectors :math:`(N, D, F_{in})`, a tree
          of :math:`N` points *(optional: edge indices* :math:`(2, E)` *)*
        - **output:** coarse scalars :math:`(M, F_{out})`, coarse vectors
          :math:`(M, D, F_{out})`, the coarse tree of :math:`M` points *(if
          edges are given: coarse edge indices* :math:`(2, E^{\prime})` *)*
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

        self.is_identity = stride == 1 and in_channels == out_channels
        if self.is_identity:
            return
        self.lin = Linear(in_channels, 2 * out_channels)
        self.lin_pos = Linear(1, out_channels, bias=False)
        self.lin_hidden = Linear(out_channels, out_channels, bias=False)
        self.lin_vec = Linear(in_channels, out_channels, bias=False)
        self.lin_vec_out = Linear(2 * out_channels, out_channels, bias=False)
        self.norm = CloudNorm(norm, out_channels, norm_kwargs)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        if not self.is_identity:
            for module in (self.lin, self.lin_pos, self.lin_hidden,
                           self.lin_vec, self.lin_vec_out, self.norm):
                module.reset_parameters()

    def forward(
        self,
        x: Tensor,
        vec: OptTensor,
        tree: BallTree,
        edge_index: OptTensor = None,
    ) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The scalars of the points.
            vec (torch.Tensor, optional): Their vectors; :obj:`None` for
                zeros.
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
        vec = check_vectors(vec, x, self.dim)
        check_stride(tree, self.stride)
        if tree.virtual == 'copy':
            if edge_index is not None:
                raise ValueError("Expected 'tree' to have virtual='masked' "
                                 "in order to carry 'edge_index' along (got "
                                 "'copy')")
            tree, index, _ = tree.in_slot_order()
            return self.forward(x[index], vec[index], tree)

        coarse = tree.coarsen()
        out, vec = self._pool(x, vec, tree, coarse)
        if edge_index is None:
            return out, vec, coarse
        check_edge_index(edge_index)
        edges, _ = remove_self_loops(tree.cluster()[edge_index])
        edges = coalesce(edges, num_nodes=coarse.num_points)
        return out, vec, coarse, edges

    def _pool(self, x: Tensor, vec: Tensor, tree: BallTree,
              coarse: BallTree) -> tuple[Tensor, Tensor]:
        index, mask = tree.children()
        if self.is_identity:
            return x[index.squeeze(1)], vec[index.squeeze(1)]
        offset = tree.child_offsets()
        far = length(offset).unsqueeze(2).to(x.dtype)
        x, hidden = self.lin(x)[index].chunk(2, dim=2)
        hidden = F.gelu(hidden + self.lin_pos(far))
        vec = self.lin_vec(vec)[index]
        if mask is not None:
            hidden = hidden * mask.unsqueeze(2)
        # Sums over children, of which none of offsets x channels is stored.
        along = offset.to(x.dtype).transpose(1, 2) @ hidden
        turn = torch.cat([(hidden.unsqueeze(2) * vec).sum(1), along], dim=2)
        count = index.size(1) if mask is None else (
            mask.sum(1).clamp(min=1).view(-1, 1, 1))
        out = mean(x, mask) + self.lin_hidden(mean(hidden, mask))
        vec = mean(vec, mask) + self.lin_vec_out(turn / count)
        return self.norm(out, coarse), vec

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, '
                f'{self.out_channels}, stride={self.stride})')


def mean(x: Tensor, mask: OptTensor) -> Tensor:
    r"""Takes the mean of real children, shape :math:`(M, \text{stride},
    \ldots)`.
    """
    if mask is None:
        return x.mean(1)
    shape = *mask.shape, *[1] * (x.dim() - 2)
    count = mask.sum(1).clamp(min=1).view(-1, *shape[2:])
    return (x * mask.view(shape)).sum(1) / count
