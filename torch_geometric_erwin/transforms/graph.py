from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

CHUNK = 2**22  # numbers in a stack of dense matrices


class Graph(NamedTuple):
    r"""An undirected graph without loops, each edge in both directions.

    Args:
        row: Where each edge begins, shape :math:`(E)`, in ascending order.
        col: Where it ends, shape :math:`(E)`.
        weight: Its weight, shape :math:`(E)`, positive, in float64.
        batch: The graph of each node, shape :math:`(N)`.
        component: The connected component of each node, shape :math:`(N)`,
            numbered by their first nodes.
    """
    row: Tensor
    col: Tensor
    weight: Tensor
    batch: Tensor
    component: Tensor

    @property
    def num_nodes(self) -> int:
        return self.batch.numel()

    @property
    def degree(self) -> Tensor:
        r"""The sum of each node's weights, shape :math:`(N)`."""
        return self.weight.new_zeros(self.num_nodes).index_add_(
            0, self.row, self.weight)

    @property
    def sizes(self) -> Tensor:
        r"""The number of nodes of each component."""
        return torch.bincount(self.component)


class Stack(NamedTuple):
    r"""Connected components of one size, solved at once.

    Args:
        nodes: The nodes of one component after the other, shape :math:`(n)`.
        row: Where the edges begin, as positions in :obj:`nodes`.
        col: Where they end.
        weight: Their weights.
        size: The number of nodes of a component.
    """
    nodes: Tensor
    row: Tensor
    col: Tensor
    weight: Tensor
    size: int

    def dense(self) -> Tensor:
        r"""Returns the adjacency matrices, shape :math:`(B, m, m)`."""
        matrix = self.weight.new_zeros(len(self.nodes), self.size)
        matrix[self.row, self.col % self.size] = self.weight
        return matrix.view(-1, self.size, self.size)


def stacks(graph: Graph) -> Iterator[Stack]:
    r"""Cuts a graph into its components, smallest first, as many of one size
    at once as fit into a chunk of dense matrices.
    """
    sizes = graph.sizes[graph.component]
    order = (sizes * graph.num_nodes + graph.component).argsort(stable=True)
    sizes, place = sizes[order], torch.empty_like(order)
    place[order] = torch.arange(len(order))
    row, perm = place[graph.row].sort(stable=True)
    col, weight = place[graph.col][perm], graph.weight[perm]
    start = 0
    while start < len(order):
        size = int(sizes[start])
        end = start + max(CHUNK // size**2, 1) * size
        end = min(end, int(torch.searchsorted(sizes, size, right=True)))
        first, last = torch.searchsorted(
            row, torch.tensor([start, end])).tolist()
        yield Stack(order[start:end], row[first:last] - start,
                    col[first:last] - start, weight[first:last], size)
        start = end


def read_graph(data: Any) -> Graph:
    r"""Reads :obj:`edge_index`, :obj:`edge_weight` and :obj:`batch`, and
    takes every edge in both directions: :math:`A + A^{\top}`, with loops and
    edges of weight zero left out and parallel edges added up.

    Raises:
        ValueError: If :obj:`data` is not a homogeneous graph with edges
            between its nodes, or a weight is negative or not finite.
    """
    if isinstance(data, HeteroData):
        raise ValueError("Expected 'data' to be a homogeneous graph (got a "
                         "HeteroData: see its method 'to_homogeneous')")
    edge_index = _edge_index(data)
    num_nodes = data.num_nodes
    weight = _edge_weight(data, edge_index.size(1))
    if edge_index.numel() and (edge_index.min() < 0
                               or edge_index.max() >= num_nodes):
        raise ValueError(
            f"Expected 'edge_index' to name nodes in [0, {num_nodes}) (got "
            f"{int(edge_index.min())} to {int(edge_index.max())})")
    batch = _batch(data, edge_index, num_nodes)
    row, col, weight = _symmetrize(edge_index, weight, num_nodes)
    return Graph(row, col, weight, batch,
                 connected_components(row, col, num_nodes))


def _batch(data: Any, edge_index: Tensor, num_nodes: int) -> Tensor:
    batch = data.batch if 'batch' in data else None
    if batch is None and data.get('ptr') is not None:
        sizes = data.ptr.cpu().diff()
        batch = torch.arange(len(sizes)).repeat_interleave(sizes)
    if batch is None:
        return torch.zeros(num_nodes, dtype=torch.long)
    batch = batch.cpu().long()
    if batch.shape != (num_nodes, ):
        raise ValueError(f"Expected 'batch' to name the graph of each of "
                         f"{num_nodes} nodes (got shape "
                         f"{list(batch.shape)})")
    if num_nodes and int(batch.min()) < 0:
        raise ValueError(f"Expected 'batch' not to be negative (got "
                         f"{int(batch.min())})")
    if not torch.equal(batch[edge_index[0]], batch[edge_index[1]]):
        raise ValueError("Expected 'edge_index' to connect nodes of the same "
                         "graph (got edges between graphs of 'batch')")
    return batch


def _edge_index(data: Any) -> Tensor:
    edge_index = data.edge_index if 'edge_index' in data else None
    if edge_index is None:
        raise ValueError("Expected 'data' to have edges 'edge_index' (got "
                         "none)")
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"Expected 'edge_index' to have shape [2, E] (got "
                         f"{list(edge_index.shape)})")
    if edge_index.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"Expected 'edge_index' to hold integers (got "
                         f"{edge_index.dtype})")
    return edge_index.detach().cpu().long()


def _edge_weight(data: Any, num_edges: int) -> Tensor:
    weight = data.edge_weight if 'edge_weight' in data else None
    if weight is None:
        return torch.ones(num_edges, dtype=torch.float64)
    weight = weight.detach().cpu().double()
    if weight.numel() != num_edges:
        raise ValueError(f"Expected 'edge_weight' to have a number for each "
                         f"of {num_edges} edges (got shape "
                         f"{list(weight.shape)})")
    if not bool((weight.isfinite() & (weight >= 0)).all()):
        raise ValueError("Expected 'edge_weight' to be finite and not "
                         "negative (got numbers that are not)")
    # Only ratios matter, and sums of large numbers must not overflow.
    weight = weight.flatten()
    return weight / weight.max() if num_edges and weight.max() > 0 else weight


def _symmetrize(edge_index: Tensor, weight: Tensor,
                num_nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    keep = (edge_index[0] != edge_index[1]) & (weight > 0)
    row, col = edge_index[:, keep]
    key = torch.cat([row * num_nodes + col, col * num_nodes + row])
    key, inverse = key.unique(return_inverse=True)
    total = weight.new_zeros(key.numel()).index_add_(
        0, inverse, weight[keep].repeat(2))
    return key // max(num_nodes, 1), key % max(num_nodes, 1), total


def connected_components(row: Tensor, col: Tensor, num_nodes: int) -> Tensor:
    r"""Numbers the connected components, in the order of their first nodes.

    All roots that have an edge to a smaller root join it at once. At least
    half of the roots that have edges to others do, so a number of rounds
    that grows with the logarithm of the graph is enough.
    """
    root = torch.arange(num_nodes)
    while True:
        low = torch.minimum(root[row], root[col])
        high = torch.maximum(root[row], root[col])
        if torch.equal(low, high):
            return root.unique(return_inverse=True)[1]
        root = root.scatter_reduce(0, high, low, 'amin')
        while not torch.equal(root, root[root]):
            root = root[root]
