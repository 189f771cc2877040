from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear
from torch_geometric.typing import OptTensor

from torch_geometric_erwin.nn.attention.in_balls import InBalls, Rows, Share
from torch_geometric_erwin.nn.untouched import has_global_hooks, is_untouched
from torch_geometric_erwin.tree import BallTree


class BallAttention(InBalls):
    r"""Multi-head attention among the points of each ball, from the
    `"Erwin: A Tree-based Hierarchical Transformer for Large-scale Physical
    Systems" <https://arxiv.org/abs/2502.17019>`_ paper (equations 8 to 10):

    .. math::
        \mathbf{h}_i &= \mathbf{x}_i + \mathbf{W}_{\textrm{pos}}
        (\mathbf{p}_i - \mathbf{c}_{B(i)})

        \mathbf{x}^{\prime}_i &= \mathbf{W}_o \sum_{j \in B(i)}
        \textrm{softmax}_j \left( \frac{(\mathbf{W}_q \mathbf{h}_i)^{\top}
        \mathbf{W}_k \mathbf{h}_j}{\sqrt{E}} - \sigma^2 \| \mathbf{p}_i -
        \mathbf{p}_j \| \right) \mathbf{W}_v \mathbf{h}_j

    with a learned :math:`\sigma` for each head. Distances in a periodic
    tree are those to the nearest images.

    The heads share the tree's orientations, and with them different balls
    :math:`B`, so that information crosses the borders of balls where layers
    follow one another: of :math:`H` heads in :math:`O` orientations, head
    :math:`h` attends in orientation :math:`\lfloor h O / H \rfloor`. With
    fewer heads than orientations, each attends in several and takes the mean.
    Give :obj:`partition` to let all heads attend in one orientation, as in
    the paper.

    The balls are a graph,
    :meth:`torch_geometric_erwin.BallTree.edge_index`, and this is a
    :class:`~torch_geometric.nn.MessagePassing` layer on it: slower, and with
    the same result, messages run edge by edge where somebody wants to see
    them. That is when attention weights are asked for, when a hook on
    messages is registered, and when PyG explains the model. In the last two
    cases, and where heads share the orientations, the edges are those of
    *all* orientations, :obj:`tree.edge_index(None)`, with a weight of zero
    where a head does not attend, so that edges mean the same in all layers.
    To explain the attention, pass these, or those of the first orientation
    alone, as :obj:`edge_index` to the explainer; an edge mask of any other
    graph leaves the layer alone. PyG's
    :class:`~torch_geometric.explain.algorithm.AttentionExplainer` takes the
    weights of all attention layers to be of the edges it is given: where they
    are of another graph, hide this layer by :obj:`layer.explain = False`.

    Args:
        channels (int): Size of each input and output sample.
        heads (int, optional): Number of attention heads; divides
            :obj:`channels`. (default: :obj:`1`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        bias (str, optional): How distances enter: :obj:`"distance"`
            (equation 10), :obj:`"squared"` for :math:`-\sigma^2 \|
            \mathbf{p}_i - \mathbf{p}_j \|^2`, which is smooth and which
            PyTorch's fused kernels serve, too, or :obj:`None`.
            (default: :obj:`"distance"`)
        signed (bool, optional): If set to :obj:`True`, distances are
            multiplied by :math:`\sigma` itself, which may become positive,
            as in the authors' code. (default: :obj:`False`)
        dropout (float, optional): Dropout probability of attention weights
            in training. (default: :obj:`0.`)

    Shapes:
        - **input:**
          point features :math:`(N, C)`, a tree of :math:`N` points
        - **output:** point features :math:`(N, C)`; with
          :obj:`return_attention_weights=True` also
          :math:`((2, E), (E, H))`
    """
    def __init__(
        self,
        channels: int,
        heads: int = 1,
        *,
        dim: int = 3,
        bias: str | None = 'distance',
        signed: bool = False,
        dropout: float = 0.,
    ) -> None:
        super().__init__(channels, heads, dim, bias, signed, dropout)

        self.lin_pos = Linear(dim, channels)
        self.lin_qkv = Linear(channels, 3 * channels)
        self.lin_out = Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for lin in (self.lin_pos, self.lin_qkv, self.lin_out):
            torch.nn.init.trunc_normal_(lin.weight, std=0.02)
            torch.nn.init.zeros_(lin.bias)
        # With scores that vanish, narrow layers take long to learn what to
        # look for: as in PyTorch's attention, these depend on the channels.
        torch.nn.init.xavier_uniform_(self.lin_qkv.weight)
        self.reset_sigma()

    def forward(
        self,
        x: Tensor,
        tree: BallTree,
        partition: int | None = None,
        return_attention_weights: bool | None = None,
        offset: Tensor | None = None,
    ) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
            tree (BallTree): Their ball tree.
            partition (int, optional): Which of the tree's orientations to
                attend in. (default: :obj:`None`, all, dealt out to the heads)
            return_attention_weights (bool, optional): If set to
                :obj:`True`, will additionally return the tuple
                :obj:`(edge_index, attention_weights)`.
                (default: :obj:`None`)
            offset (torch.Tensor, optional): What
                :obj:`tree.offsets(partition)` of a given orientation
                returns, if it is at hand. (default: :obj:`None`)

        Raises:
            ValueError: If features and tree do not fit each other or the
                layer.
        """
        self._check(x, tree, partition, offset, return_attention_weights)
        if tree.virtual == 'copy':
            tree, index, inverse = tree.in_slot_order()
            return self.forward(x[index], tree, partition)[inverse]

        shares = self._shares(tree, partition)
        rows = [self._project(x, tree, share, offset) for share in shares]
        out, edges = self._attend(rows, shares, tree, partition,
                                  bool(return_attention_weights))
        out = self.lin_out(self._average(out, shares).flatten(1))
        return (out, edges) if return_attention_weights else out

    def _project(self, x: Tensor, tree: BallTree, share: Share,
                 offset: OptTensor) -> Rows:
        r"""Returns queries, keys and values of some of the heads."""
        if offset is None:
            offset = tree.offsets(share.partition)
        h = x + self.lin_pos(offset.to(x.dtype))
        shape, heads = (3, self.heads, -1), slice(share.first, share.end)
        lin = self.lin_qkv
        if (share.number == self.heads or not is_untouched(lin, Linear)
                or has_global_hooks()):
            return lin(h).unflatten(1, shape)[:, :, heads].unbind(1)
        weight, bias = (w.unflatten(0, shape)[:, heads].flatten(0, 2)
                        for w in (lin.weight, lin.bias))
        return F.linear(h, weight, bias).unflatten(
            1, (3, share.number, -1)).unbind(1)
