r"""The layers that are compared, with what belongs to each."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import (
    MLP,
    BatchNorm,
    GATConv,
    GCNConv,
    GINConv,
    GINEConv,
    GPSConv,
    MessagePassing,
)

from benchmarks.graphs.nets.graph_net import Graph, GraphNet, Sizes
from torch_geometric_erwin import ErwinConv, ErwinGPSConv


class GCN(GraphNet):
    r"""Graph convolutions, :class:`~torch_geometric.nn.conv.GCNConv`, with
    skip connections and batch norm.
    """
    takes_edges = False

    def make_layer(self, i: int, sizes: Sizes) -> torch.nn.Module:
        return Local(GCNConv(sizes.channels, sizes.channels), sizes)


class GAT(GraphNet):
    r"""Attention to neighbors, :class:`~torch_geometric.nn.conv.GATConv`,
    with skip connections and batch norm.
    """
    def make_layer(self, i: int, sizes: Sizes) -> torch.nn.Module:
        conv = GATConv(sizes.channels, sizes.channels // sizes.heads,
                       sizes.heads, edge_dim=sizes.edge_channels)
        return Local(conv, sizes)


class GIN(GraphNet):
    r"""Sums over neighbors, :class:`~torch_geometric.nn.conv.GINConv` or, for
    edges with features, :class:`~torch_geometric.nn.conv.GINEConv`, with skip
    connections and batch norm.
    """
    def make_layer(self, i: int, sizes: Sizes) -> torch.nn.Module:
        return Local(gin(sizes), sizes)


class GPS(GraphNet):
    r"""PyG's :class:`~torch_geometric.nn.conv.GPSConv`: the layer of
    :class:`GIN` beside attention among all nodes.

    Args:
        attn_type (str, optional): :obj:`"multihead"` or :obj:`"performer"`.
            (default: :obj:`"multihead"`)
        **kwargs (optional): Arguments of :class:`GraphNet`.
    """
    def __init__(self, attn_type: str = 'multihead', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attn_type = attn_type

    def make_layer(self, i: int, sizes: Sizes) -> torch.nn.Module:
        kwargs = {}
        if self.attn_type == 'performer':  # 64 whatever the channels, if not
            kwargs['head_channels'] = sizes.channels // sizes.heads
        return WithBatch(GPSConv(
            sizes.channels, gin(sizes), sizes.heads, sizes.dropout,
            attn_type=self.attn_type, attn_kwargs=kwargs))


class ErwinGPS(GraphNet):
    r""":class:`~torch_geometric_erwin.ErwinGPSConv`: the layer of
    :class:`GIN` beside attention within balls, orientations in turn.

    Args:
        bias (str, optional): How distances enter attention. Those of places
            in space should, those of positions made from the graph need not.
            (default: :obj:`None`)
        **kwargs (optional): Arguments of :class:`GraphNet`.
    """
    needs_tree = True

    def __init__(self, bias: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bias = bias

    def make_layer(self, i: int, sizes: Sizes) -> torch.nn.Module:
        return WithTree(ErwinGPSConv(
            sizes.channels, gin(sizes), sizes.heads, dim=sizes.dim,
            partition=i, bias=self.bias, dropout=sizes.dropout))


class Hybrid(GraphNet):
    r"""The layer of :class:`GCN`, then blocks of
    :class:`~torch_geometric_erwin.ErwinConv`.

    Args:
        depth (int, optional): Number of blocks after each layer.
            (default: :obj:`1`)
        bias (str, optional): See :class:`ErwinGPS`. (default: :obj:`None`)
        **kwargs (optional): Arguments of :class:`GraphNet`.
    """
    needs_tree = True
    takes_edges = False

    def __init__(self, depth: int = 1, bias: str | None = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth
        self.bias = bias

    def make_layer(self, i: int, sizes: Sizes) -> torch.nn.Module:
        return InTurn(
            Local(GCNConv(sizes.channels, sizes.channels), sizes),
            ErwinConv(sizes.channels, sizes.channels, sizes.heads,
                      dim=sizes.dim, depth=self.depth,
                      partition=i * self.depth,
                      mlp_ratio=2, bias=self.bias, dropout=sizes.dropout))


def gin(sizes: Sizes) -> MessagePassing:
    mlp = MLP([sizes.channels] * 3)
    return GINConv(mlp) if sizes.edge_channels is None else GINEConv(mlp)


def edge_arguments(conv: Any, graph: Graph) -> dict[str, Tensor]:
    r"""Passes features of edges to those layers that take them."""
    takes = isinstance(conv, GINEConv | GATConv)
    return ({'edge_attr': graph.edge_attr}
            if takes and graph.edge_attr is not None else {})


class Local(torch.nn.Module):
    r"""Message passing with norm, activation, dropout and a skip
    connection.
    """
    def __init__(self, conv: MessagePassing, sizes: Sizes) -> None:
        super().__init__()
        self.conv = conv
        self.norm = BatchNorm(sizes.channels)
        self.dropout = torch.nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        h = self.conv(x, graph.edge_index, **edge_arguments(self.conv, graph))
        return x + self.dropout(self.norm(h).relu())


class WithBatch(torch.nn.Module):
    r"""Calls :class:`~torch_geometric.nn.conv.GPSConv`."""
    def __init__(self, conv: GPSConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return self.conv(x, graph.edge_index, graph.batch,
                         **edge_arguments(self.conv.conv, graph))


class WithTree(torch.nn.Module):
    r"""Calls :class:`~torch_geometric_erwin.ErwinGPSConv`."""
    def __init__(self, conv: ErwinGPSConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return self.conv(x, graph.edge_index, graph.tree,
                         **edge_arguments(self.conv.conv, graph))


class InTurn(torch.nn.Module):
    r"""Message passing, then attention."""
    def __init__(self, local: Local, conv: ErwinConv) -> None:
        super().__init__()
        self.local = local
        self.conv = conv

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return self.conv(self.local(x, graph), graph.tree)
