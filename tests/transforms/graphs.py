r"""Small graphs for the tests of positions."""

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected


def graph(edges: Tensor, num_nodes: int) -> Data:
    return Data(edge_index=to_undirected(edges, num_nodes=num_nodes),
                num_nodes=num_nodes)


def path(n: int) -> Data:
    return graph(torch.stack([torch.arange(n - 1), torch.arange(1, n)]), n)


def ring(n: int) -> Data:
    return graph(torch.stack([torch.arange(n), torch.arange(n).roll(-1)]), n)


def star(n: int) -> Data:
    leaves = torch.arange(1, n)
    return graph(torch.stack([torch.zeros_like(leaves), leaves]), n)


def complete(n: int) -> Data:
    return graph(torch.combinations(torch.arange(n)).t(), n)


def grid(height: int, width: int) -> Data:
    i = torch.arange(height * width).view(height, width)
    down = torch.stack([i[:-1].flatten(), i[1:].flatten()])
    right = torch.stack([i[:, :-1].flatten(), i[:, 1:].flatten()])
    return graph(torch.cat([down, right], dim=1), i.numel())


def hypercube(k: int) -> Data:
    i = torch.arange(2**k)
    edges = [torch.stack([i, i ^ (1 << bit)]) for bit in range(k)]
    return graph(torch.cat(edges, dim=1), 2**k)


def random_graph(n: int, seed: int = 0) -> Data:
    r"""A connected graph of pieces of a random tree and random edges, which
    has no symmetries worth mentioning.
    """
    generator = torch.Generator().manual_seed(seed)
    node = torch.arange(1, n)
    tree = torch.stack([node, (torch.rand(
        n - 1, generator=generator) * node).long()])
    more = torch.randint(n, (2, n), generator=generator)
    data = graph(torch.cat([tree, more], dim=1), n)
    half = torch.rand(data.num_edges, generator=generator,
                      dtype=torch.float64)
    data.edge_weight = 0.1 + half
    return data


def union(*parts: Data) -> Data:
    edges, start = [], 0
    for part in parts:
        edges.append(part.edge_index + start)
        start += part.num_nodes
    return Data(edge_index=torch.cat(edges, dim=1), num_nodes=start)


def permuted(data: Data, perm: Tensor) -> Data:
    r"""Node :obj:`perm[i]` becomes node :obj:`i`."""
    out = data.clone()
    inverse = torch.empty_like(perm)
    inverse[perm] = torch.arange(len(perm))
    out.edge_index = inverse[data.edge_index]
    return out
