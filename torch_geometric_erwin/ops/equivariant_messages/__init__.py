r"""Messages along edges, made from scalars and vectors, and summed with the
directions of the edges and with the vectors of their sources.

The kernels (C++ on the CPU, Triton on GPUs) compute in float32 and store no
messages, as those of :func:`~torch_geometric_erwin.ops.message_passing` do.
What they do not serve (float64) is computed edge by edge.
"""

from torch import Tensor

from torch_geometric_erwin.ops.equivariant_messages import (
    cpu,
    reference,
    register,
)
from torch_geometric_erwin.ops.message_passing import EdgeLists, check_edges
from torch_geometric_erwin.ops.transformed import needs_formula


def equivariant_messages(
    src: Tensor,
    dst: Tensor,
    vec: Tensor,
    edge: Tensor,
    unit: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    edge_index: Tensor,
    *,
    lists: EdgeLists | None = None,
    aggr: str = 'mean',
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    r"""Computes

    .. math::
        \mathbf{m}_{ij} &= \textrm{LayerNorm} \big( \textrm{GELU}(
        \mathbf{s}_j + \mathbf{d}_i + \mathbf{W} \mathbf{e}_{ij} +
        \hat{\mathbf{u}}_{ij} \cdot \vec{\mathbf{v}}_j ) \big)

        \mathbf{m}_i &= \frac{1}{|\mathcal{N}(i)|} \sum_{j \in
        \mathcal{N}(i)} \mathbf{m}_{ij}, \qquad
        \vec{\mathbf{m}}_i = \frac{1}{|\mathcal{N}(i)|} \sum_{j \in
        \mathcal{N}(i)} [\mathbf{m}_{ij} \, \hat{\mathbf{u}}_{ij},
        \mathbf{m}_{ij} \odot \vec{\mathbf{v}}_j],

    zero where no edge leads to. Derivatives of any order exist with respect
    to all floating-point arguments.

    Args:
        src: What sources tell, shape :math:`(N_{src}, C)`.
        dst: What targets add, shape :math:`(N_{dst}, C)`.
        vec: The vectors of sources, shape :math:`(N_{src}, D, C)`.
        edge: What edges add, shape :math:`(E, K)`.
        unit: The directions of the edges, shape :math:`(E, D)`.
        weight: What edges' numbers are multiplied by, shape :math:`(C, K)`.
        scale: The weight of the layer norm, shape :math:`(C)`.
        shift: Its bias, shape :math:`(C)`, or :obj:`None`.
        edge_index: Sources and targets, shape :math:`(2, E)`.
        lists: The edges of each node, if these are at hand.
        aggr: :obj:`"mean"` or :obj:`"sum"`.
        eps: What the layer norm adds to variances.

    Returns:
        The messages of each target, shape :math:`(N_{dst}, C)`, and vectors,
        shape :math:`(N_{dst}, D, 2 C)`.

    Raises:
        ValueError: If there are not as many edges as numbers of edges, or
            nodes other than features, or edges between other nodes.
    """
    variables = src, dst, vec, edge, unit, weight, scale, shift
    size = src.size(0), dst.size(0)
    check_edges(edge, edge_index, lists, size)
    if not register.serves(*variables) or needs_formula(*variables):
        return reference.equivariant_messages(*variables, edge_index, aggr,
                                              eps)
    if lists is None or lists.is_for_cpu != (src.device.type == 'cpu'):
        lists = EdgeLists.of(edge_index, *size)
    return register.equivariant_messages(variables, edge_index, lists, aggr,
                                         eps)


__all__ = ['cpu', 'equivariant_messages']
