from typing import Any

import torch
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from torch_geometric_erwin.transforms.add_ball_tree import describe
from torch_geometric_erwin.transforms.graph import read_graph
from torch_geometric_erwin.transforms.layout import lay_out
from torch_geometric_erwin.transforms.spectral import spectral_axes


@functional_transform('add_laplacian_pos')
class AddLaplacianPos(BaseTransform):
    r"""Gives the nodes of a graph positions, from the eigenvectors of its
    Laplacian, so that nodes close on the graph are close in space
    (functional name: :obj:`add_laplacian_pos`).

    Axis :math:`k` of a connected graph is the eigenvector :math:`u_{k+1}` of
    :math:`L = I - D^{-1/2} A D^{-1/2}` in its random-walk form,

    .. math::
        \mathbf{p}_k = D^{-1/2} \mathbf{u}_{k+1} / \sqrt{\lambda_{k+1}},

    in the order of the eigenvalues. These are the coordinates of
    `"Diffusion Maps" <https://doi.org/10.1016/j.acha.2006.04.006>`_ (Coifman
    and Lafon, 2006) with the scale of `"Clustering and Embedding Using
    Commute Times" <https://doi.org/10.1109/TPAMI.2007.1103>`_ (Qiu and
    Hancock, 2007): squared distances approximate the time that a random walk
    takes to the other node and back, and the Fiedler vector is the axis of
    the largest spread, which a ball tree splits first. Such eigenvectors, not
    scaled, are the positional encoding of `"Benchmarking Graph Neural
    Networks" <https://arxiv.org/abs/2003.00982>`_.

    * **Signs and bases.** Eigenvectors are unique up to sign, and those of
      equal eigenvalues up to a rotation (see `"Sign and Basis Invariant
      Networks" <https://arxiv.org/abs/2202.13013>`_). Here each eigenspace
      gets the basis of a pivoted QR decomposition of its projector, so a
      single eigenvector gets a positive entry of largest magnitude. Results
      are the same in every run, and permuting the nodes permutes them,
      unless nodes tie exactly, as in symmetric graphs: then the first
      counts. Random signs for training are those of
      :class:`~torch_geometric.transforms.RandomFlip`.
    * **Disconnected graphs.** Each component is solved on its own. They lie
      side by side along the first axis, largest first, with gaps as wide as
      they are. The largest has its center at the origin and a root mean
      square distance of one from it; one of a fraction :math:`f` of its
      nodes has :math:`\sqrt{f}`.
    * **Small components.** One of :math:`m` nodes has :math:`m - 1` axes;
      the others are zero.
    * **Edges.** All count in both directions, :math:`A + A^{\top}`, with
      parallel edges added up. Loops are left out, as they lead nowhere.
      :obj:`data.edge_weight` is used where there is one.
    * **Batches.** Each graph of a :class:`~torch_geometric.data.Batch` gets
      the positions that it gets alone.
    * **Cost.** Connected graphs of up to 500 nodes are solved by a dense
      eigensolver. Larger ones need SciPy: 100,000 nodes take seconds, and up
      to a minute if they are well connected and yet have many long chains.
      All is computed in float64 on the CPU. Equal eigenvalues of a large
      graph are looked for up to 16 beyond the last axis; if there are more,
      as of a star, the basis is one of those found.

    Args:
        dim (int, optional): The number of axes. (default: :obj:`8`)
        attr (str, optional): The name of the attribute to write.
            (default: :obj:`"pos"`)
        scaling (str, optional): :obj:`"commute"`, or :obj:`None` to give
            each axis the norm of its eigenvector: then a larger :obj:`dim`
            reaches finer detail. (default: :obj:`"commute"`)
        dtype (torch.dtype, optional): The type of the positions.
            (default: :obj:`torch.float32`)

    Shapes:
        - **output:** :obj:`data.pos` :math:`(N, \text{dim})`, on the device
          of :obj:`edge_index`

    Raises:
        ValueError: If :obj:`dim` is not positive, or :obj:`data` is not a
            homogeneous graph with valid :obj:`edge_index` and non-negative,
            finite weights.
        ImportError: If a large graph needs SciPy, and it is missing.
        RuntimeError: If the eigenvectors of a large graph do not converge.
    """
    def __init__(
        self,
        dim: int = 8,
        attr: str = 'pos',
        scaling: str | None = 'commute',
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dim < 1:
            raise ValueError(f"Expected 'dim' to be positive (got {dim})")
        if scaling not in ('commute', None):
            raise ValueError(f"Expected 'scaling' to be 'commute' or None "
                             f"(got {scaling!r})")
        if not dtype.is_floating_point:
            raise ValueError(f"Expected 'dtype' to be a floating-point type "
                             f"(got {dtype})")
        self.dim = dim
        self.attr = attr
        self.scaling = scaling
        self.dtype = dtype

    @torch.no_grad()
    def forward(self, data: Data) -> Any:
        graph = read_graph(data)
        axes = spectral_axes(graph, self.dim, self.scaling == 'commute')
        pos = lay_out(axes, graph)
        data[self.attr] = pos.to(data.edge_index.device, self.dtype)
        return data

    def __repr__(self) -> str:
        return describe(self, {'dim': self.dim}, {
            'attr': 'pos', 'scaling': 'commute', 'dtype': torch.float32})
