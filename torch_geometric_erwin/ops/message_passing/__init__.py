r"""The messages of equation 14, summed over the edges of each target.

The kernels (C++ on the CPU, Triton on GPUs) compute in float32 and store no
messages: a target's are added up as they are made, and made again for
gradients. Those of sources take, on CPUs, some rows for each source (about two
for neighbors in space, never more than eight) until they are added up.
"""

from torch import Tensor

from torch_geometric_erwin.ops.message_passing import (
    cpu,
    reference,
    register,
)
from torch_geometric_erwin.ops.message_passing.edge_lists import EdgeLists
from torch_geometric_erwin.ops.transformed import needs_formula


def message_passing(
    src: Tensor,
    dst: Tensor,
    edge: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    edge_index: Tensor,
    *,
    lists: EdgeLists | None = None,
    aggr: str = 'mean',
    eps: float = 1e-5,
) -> Tensor:
    r"""Computes

    .. math::
        \mathbf{m}_i = \frac{1}{|\mathcal{N}(i)|} \sum_{j \in \mathcal{N}(i)}
        \textrm{LayerNorm} \big( \textrm{GELU}( \mathbf{s}_j + \mathbf{d}_i +
        \mathbf{W} \mathbf{e}_{ij} ) \big),

    zero where no edge leads to. Derivatives of any order exist with respect
    to all floating-point arguments; those beyond the first, and what no
    kernel serves (float64), are computed edge by edge.

    Args:
        src: What sources tell, shape :math:`(N_{src}, C)`.
        dst: What targets add, shape :math:`(N_{dst}, C)`.
        edge: What edges add, shape :math:`(E, K)`.
        weight: What edges' numbers are multiplied by, shape :math:`(C, K)`.
        scale: The weight of the layer norm, shape :math:`(C)`.
        shift: Its bias, shape :math:`(C)`, or :obj:`None`.
        edge_index: Sources and targets, shape :math:`(2, E)`.
        lists: The edges of each node, if these are at hand.
        aggr: :obj:`"mean"` or :obj:`"sum"`.
        eps: What the layer norm adds to variances.

    Returns:
        The messages of each target, shape :math:`(N_{dst}, C)`.

    Raises:
        ValueError: If there are not as many edges as numbers of edges, or
            nodes other than features, or edges between other nodes.
    """
    variables = src, dst, edge, weight, scale, shift
    size = src.size(0), dst.size(0)
    check_edges(edge, edge_index, lists, size)
    if not register.serves(*variables) or needs_formula(*variables):
        return reference.message_passing(*variables, edge_index, aggr, eps)
    if lists is None or lists.is_for_cpu != (src.device.type == 'cpu'):
        lists = EdgeLists.of(edge_index, *size)
    return register.message_passing(variables, edge_index, lists, aggr, eps)


def check_edges(edge: Tensor, edge_index: Tensor, lists: EdgeLists | None,
                size: tuple[int, int]) -> None:
    r"""Kernels would read what is not there."""
    if edge.size(0) != edge_index.size(1):
        raise ValueError(f"Expected 'edge' to have one row per edge, "
                         f"{edge_index.size(1)} (got {edge.size(0)})")
    if lists is None:
        return
    found = lists.out_ptr.size(0) - 1, lists.in_ptr.size(0) - 1
    if found != size or lists.in_edges.size(0) != edge.size(0):
        raise ValueError(
            f"Expected {edge.size(0)} edges between {size[0]} sources and "
            f"{size[1]} targets, as there are features of (got a list of "
            f"{lists.in_edges.size(0)} edges between {found[0]} and "
            f"{found[1]})")


__all__ = ['EdgeLists', 'check_edges', 'cpu', 'message_passing']
