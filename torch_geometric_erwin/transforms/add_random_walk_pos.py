from typing import Any

import torch
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from torch_geometric_erwin.transforms.add_ball_tree import describe
from torch_geometric_erwin.transforms.graph import read_graph
from torch_geometric_erwin.transforms.layout import lay_out
from torch_geometric_erwin.transforms.random_walk import log_landing, returns


@functional_transform('add_random_walk_pos')
class AddRandomWalkPos(BaseTransform):
    r"""Gives the nodes of a graph positions, from where random walks land
    (functional name: :obj:`add_random_walk_pos`).

    With :obj:`landing="anchors"`, axis :math:`k` tells how likely a walk of
    :math:`T` steps lands at anchor :math:`a_k`:

    .. math::
        p_{ik} = \log \frac{1}{T + 1} \sum_{t=0}^{T}
        \left[ (D^{-1} A)^t \right]_{i a_k}.

    The logarithm makes this nearly linear in the distance to the anchor, so
    nodes close on the graph are close in space. (Probabilities themselves,
    or their roots, fall off so fast that all nodes far from the anchors
    coincide.) The first anchor is the node of the largest degree, and each
    other one is farthest from those before, in hops; between nodes that tie,
    degrees around them decide, and at last their order.

    With :obj:`landing="self"`, coordinate :math:`k` is the probability
    :math:`[(D^{-1} A)^{k}]_{ii}` that a walk of :math:`k = 1, 2, \ldots`
    steps is back at its start, the encoding of `"Graph Neural Networks with
    Learnable Structural and Positional Representations"
    <https://arxiv.org/abs/2110.07875>`_. It tells the role of a node, not its
    place: nodes that look alike coincide, however far apart they are.

    * **Disconnected graphs.** Each component has its own anchors. They are
      scaled and lie side by side as those of :class:`AddLaplacianPos`; one
      of :math:`m` nodes has at most :math:`m` axes, the others are zero.
      Returns are not laid out. From an isolated node a walk stays.
    * **Edges and batches** mean what they mean to :class:`AddLaplacianPos`.
    * **Cost.** Anchors need :obj:`dim` breadth-first searches and :math:`T`
      products of a sparse matrix with :obj:`dim` columns. Returns need
      :obj:`dim / 2` products of dense matrices. All is computed in float64
      on the CPU.

    Args:
        dim (int, optional): The number of axes. (default: :obj:`8`)
        attr (str, optional): The name of the attribute to write.
            (default: :obj:`"pos"`)
        landing (str, optional): :obj:`"anchors"` or :obj:`"self"`.
            (default: :obj:`"anchors"`)
        walk_length (int, optional): The steps :math:`T` of walks to anchors.
            Nodes that are farther from an anchor share the coordinate of the
            least likely nodes that are not, so it should not be short.
            (default: in each component, twice as many as the hops from the
            first anchor to the farthest node, but at most 512)
        dtype (torch.dtype, optional): The type of the positions.
            (default: :obj:`torch.float32`)

    Shapes:
        - **output:** :obj:`data.pos` :math:`(N, \text{dim})`, on the device
          of :obj:`edge_index`

    Raises:
        ValueError: If :obj:`dim` or :obj:`walk_length` is not positive,
            :obj:`data` is not a homogeneous graph with valid
            :obj:`edge_index` and non-negative, finite weights, or has a
            component of more than 4000 nodes for :obj:`landing="self"`.
    """
    def __init__(
        self,
        dim: int = 8,
        attr: str = 'pos',
        landing: str = 'anchors',
        walk_length: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dim < 1:
            raise ValueError(f"Expected 'dim' to be positive (got {dim})")
        if landing not in ('anchors', 'self'):
            raise ValueError(f"Expected 'landing' to be 'anchors' or 'self' "
                             f"(got {landing!r})")
        if walk_length is not None and walk_length < 1:
            raise ValueError(f"Expected 'walk_length' to be positive (got "
                             f"{walk_length})")
        if not dtype.is_floating_point:
            raise ValueError(f"Expected 'dtype' to be a floating-point type "
                             f"(got {dtype})")
        self.dim = dim
        self.attr = attr
        self.landing = landing
        self.walk_length = walk_length
        self.dtype = dtype

    @torch.no_grad()
    def forward(self, data: Data) -> Any:
        graph = read_graph(data)
        if self.landing == 'self':
            pos = returns(graph, self.dim)
        else:
            axes = log_landing(graph, self.dim, self.walk_length)
            pos = lay_out(axes, graph)
        data[self.attr] = pos.to(data.edge_index.device, self.dtype)
        return data

    def __repr__(self) -> str:
        return describe(self, {'dim': self.dim}, {
            'attr': 'pos', 'landing': 'anchors', 'walk_length': None,
            'dtype': torch.float32})
