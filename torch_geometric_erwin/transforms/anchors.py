import torch
from torch import Tensor

from torch_geometric_erwin.transforms.graph import Graph


def farthest_nodes(graph: Graph,
                   num_anchors: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Chooses anchors that cover each component: first the most prominent
    node, then always one farthest from all chosen ones, in hops.

    Shapes:
        - **output:** the chosen nodes :math:`(K)`, the step in which each was
          chosen :math:`(K)`, and the largest number of hops from the first
          anchor in each component
    """
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(
        graph.row, minlength=graph.num_nodes).cumsum(0)])
    rank = prominence(graph)
    hops = torch.full((graph.num_nodes, ), graph.num_nodes)
    nodes, slots = [hops[:0]], [hops[:0]]
    reach = torch.zeros_like(graph.sizes)
    for slot in range(num_anchors):
        node = _farthest(hops, rank, graph)
        node = node[hops[node] > 0]  # smaller components run out of nodes
        if node.numel() == 0:
            break
        hops = _spread(hops, node, ptr, graph.col)
        if slot == 0:
            reach.scatter_reduce_(0, graph.component, hops, 'amax')
        nodes.append(node)
        slots.append(torch.full_like(node, slot))
    return torch.cat(nodes), torch.cat(slots), reach


def prominence(graph: Graph, num_rounds: int = 16) -> Tensor:
    r"""Ranks nodes, first by their degree, then by the degrees around them;
    only nodes that tie in all of them are ranked by their order, the first
    above the others.
    """
    degree = graph.degree
    largest = degree.new_zeros(len(graph.sizes)).scatter_reduce(
        0, graph.component, degree, 'amax').clamp(min=1e-300)
    value = degree / largest[graph.component]
    order = torch.arange(graph.num_nodes - 1, -1, -1)
    around = value
    for _ in range(num_rounds):
        message = around[graph.col] * graph.weight
        around = torch.zeros_like(value).index_add_(0, graph.row, message)
        around = around / degree.clamp(min=1e-300)
        value = value + around.square() / 64  # a sum alone loses too much
    value = (value * 1e9).round()
    order = order[value[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(graph.num_nodes)
    return rank


def _farthest(hops: Tensor, rank: Tensor, graph: Graph) -> Tensor:
    r"""Returns each component's farthest node, of the highest rank."""
    score = hops * graph.num_nodes + rank
    best = torch.zeros_like(graph.sizes).scatter_reduce(
        0, graph.component, score, 'amax')
    return (score == best[graph.component]).nonzero().flatten()


def _spread(hops: Tensor, node: Tensor, ptr: Tensor, col: Tensor) -> Tensor:
    r"""Updates the distances to the nearest anchor by a breadth-first search
    from the new ones, as far as these are nearer.
    """
    hops, distance = hops.clone(), 0
    while node.numel():
        hops[node] = distance
        distance += 1
        count = ptr[node + 1] - ptr[node]
        first = ptr[node] - (count.cumsum(0) - count)
        edge = torch.repeat_interleave(first, count)
        near = col[edge + torch.arange(len(edge))]
        near = near[hops[near] > distance]
        hops[near] = distance
        node = near.unique()
    return hops
