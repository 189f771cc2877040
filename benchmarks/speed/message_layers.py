r"""Layers that pass messages, ours and PyG's, on the same graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    PointTransformerConv,
    TransformerConv,
)

from benchmarks.speed.timing import Contender
from torch_geometric_erwin import BallTree, ErwinConv
from torch_geometric_erwin.nn import EquivariantMPNNConv, MPNNConv

HEADS = 4
# Edges times channels, up to which peers that store them fit in memory.
MOST = 3e8


class EdgeByEdge(MPNNConv):
    r"""With a message of its own, so that no kernel serves."""
    def message(self, src_j: Tensor, dst_i: Tensor, edge: Tensor) -> Tensor:
        return super().message(src_j, dst_i, edge)


class EquivariantEdgeByEdge(EquivariantMPNNConv):
    r"""As above."""
    def message(self, src_j: Tensor, dst_i: Tensor, vec_j: Tensor,
                edge: Tensor, unit: Tensor) -> Tensor:
        return super().message(src_j, dst_i, vec_j, edge, unit)


def make_block(channels: int) -> ErwinConv:
    return ErwinConv(channels, channels, HEADS, depth=1)


LAYERS: dict[str, Callable[[int], torch.nn.Module]] = {
    'MPNNConv': MPNNConv,
    'edge by edge': EdgeByEdge,
    'Erwin block': make_block,
    'GCNConv': lambda c: GCNConv(c, c),
    'GATConv': lambda c: GATConv(c, c // HEADS, HEADS),
    'TransformerConv': lambda c: TransformerConv(c, c // HEADS, HEADS),
    'PointTransformerConv': lambda c: PointTransformerConv(c, c),
}
# On scalars and vectors, of three dimensions.
VECTOR_LAYERS: dict[str, Callable[[int], torch.nn.Module]] = {
    'EquivariantMPNNConv': EquivariantMPNNConv,
    'the same, edge by edge': EquivariantEdgeByEdge,
}
THRIFTY = 'MPNNConv', 'Erwin block', 'EquivariantMPNNConv'


class Problem:
    r"""Points in the order they come in, and their nearest neighbors."""
    def __init__(self, nodes: int, k: int, channels: int,
                 device: torch.device | str = 'cpu') -> None:
        torch.manual_seed(0)
        self.size, self.channels = nodes * k * channels, channels
        tree = BallTree.build(torch.rand(nodes, 3), ball_size=256)
        self.edge_index = tree.knn_graph(k).to(device)
        self.tree = tree.to(device)
        self.x = torch.randn(nodes, channels).to(device).requires_grad_()

    def step(self, name: str) -> Contender | None:
        r"""Gradients of features and weights, all that the layer has to find
        out about edges included.
        """
        if self.size > MOST and name not in THRIFTY:
            return None
        if name in VECTOR_LAYERS:
            return self.vector_step(name)
        layer: Any = LAYERS[name](self.channels).to(self.x.device)
        if isinstance(layer, MPNNConv):
            args: tuple[Any, ...] = self.edge_index, self.tree
        elif name == 'Erwin block':
            args = (self.tree, )
        elif name == 'PointTransformerConv':
            args = self.tree.pos, self.edge_index
        else:
            args = (self.edge_index, )
        variables = [self.x, *layer.parameters()]
        return lambda: torch.autograd.grad(layer(self.x, *args).sum(),
                                           variables)

    def vector_step(self, name: str) -> Contender:
        layer: Any = VECTOR_LAYERS[name](self.channels).to(self.x.device)
        vec = self.x.detach().unsqueeze(1).repeat(1, 3, 1).requires_grad_()
        variables = [self.x, vec, *layer.parameters()]
        return lambda: torch.autograd.grad(
            sum(out.sum() for out in layer(self.x, vec, self.tree,
                                           self.edge_index)), variables)
