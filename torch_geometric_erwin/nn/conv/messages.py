r"""What layers have in common that pass messages along edges."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import GELU, LayerNorm, Linear
from torch_geometric.nn.aggr import (
    Aggregation,
    MeanAggregation,
    SumAggregation,
)

from torch_geometric_erwin.nn.checks import check_edge_index, check_edge_shift
from torch_geometric_erwin.nn.untouched import (
    has_global_hooks,
    is_untouched,
    is_watched,
)
from torch_geometric_erwin.tree import BallTree, TreeEdges

# The aggregations of the kernels.
FUSED = {MeanAggregation: 'mean', SumAggregation: 'sum'}
STEPS = 'propagate', 'message', 'aggregate', 'update', 'edge_update'


def check_aggr(aggr: Any) -> None:
    if not isinstance(aggr, str | Aggregation):
        raise ValueError(f"Expected 'aggr' to be the name of an aggregation "
                         f"or an 'Aggregation' (got {type(aggr).__name__})")


def find_edges(edge_index: Any, edge_shift: Any, tree: BallTree, dim: int,
               source: BallTree | None = None) -> TreeEdges:
    r"""Returns what edges tell, as given or of indices and shifts."""
    if not isinstance(edge_index, TreeEdges):
        check_edge_index(edge_index)
        check_edge_shift(edge_shift, edge_index, dim)
        return tree.edges(edge_index, edge_shift, source)
    if edge_shift is not None:
        raise ValueError("Expected 'edge_shift' to be given to 'tree.edges', "
                         "which knows vectors already (got it along with "
                         "'TreeEdges')")
    return edge_index


def add_edge_attr(edge: Tensor, edge_attr: Any,
                  edge_dim: int | None) -> Tensor:
    r"""Appends the features of edges, if there are any, to what their ends
    tell of them, shape :math:`(E, K)`.
    """
    if edge_dim is None and edge_attr is None:
        return edge
    shape = [edge.size(0), edge_dim]
    if not isinstance(edge_attr, Tensor) or list(edge_attr.shape) != shape:
        got = (list(edge_attr.shape) if isinstance(edge_attr, Tensor)
               else type(edge_attr).__name__)
        raise ValueError(f"Expected 'edge_attr' to be a tensor of shape "
                         f"[num_edges, edge_dim], {shape} (got {got})")
    return torch.cat([edge, edge_attr.to(edge.dtype)], dim=1)


def is_fused(conv: Any, kind: type) -> bool:
    r"""Whether nobody can tell if messages of a layer of this kind are made
    one by one.
    """
    return not (
        is_watched(conv) or has_global_hooks()
        or type(conv.aggr_module) not in FUSED
        or conv.flow != 'source_to_target'
        or any(getattr(type(conv), name) is not getattr(kind, name)
               or name in vars(conv) for name in STEPS)
        or not is_untouched(conv.act, GELU)
        or conv.act.approximate != 'none'
        or not is_untouched(conv.lin_edge, Linear)
        or not is_untouched(conv.norm_message, LayerNorm)
        or conv.norm_message.weight is None)
