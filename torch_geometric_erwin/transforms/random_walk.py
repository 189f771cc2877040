import warnings

import torch
from torch import Tensor

from torch_geometric_erwin.transforms.anchors import farthest_nodes
from torch_geometric_erwin.transforms.graph import Graph, stacks

MAX_STEPS = 512  # that a walk takes unless asked for more
DENSE_NODES = 4000  # of a component whose returns are computed


def log_landing(graph: Graph, num_anchors: int,
                walk_length: int | None) -> Tensor:
    r"""Returns the logarithms of the probabilities that a walk from a node
    is at each of its component's anchors, on the average of steps zero to
    :obj:`walk_length`, shape :math:`(N, \text{num\_anchors})`.

    Where no walk arrives in time, the least likely node from where one does
    stands in; anchors that a component does not have count as certain.
    """
    node, slot, reach = farthest_nodes(graph, num_anchors)
    length = ((2 * reach).clamp(max=MAX_STEPS) if walk_length is None else
              torch.full_like(reach, walk_length))
    length = length[graph.component].unsqueeze(1)
    step = transition_matrix(graph)
    now = torch.zeros(graph.num_nodes, num_anchors, dtype=torch.float64)
    now[node, slot] = 1.
    total = now.clone()
    for i in range(int(length.max()) if len(length) else 0):
        now = step @ now
        total += now * (i < length)
    least = _least_positive(total, graph.component)
    return torch.maximum(total, least).div(length + 1).log()


def transition_matrix(graph: Graph) -> Tensor:
    r"""Returns the sparse matrix :math:`D^{-1} A` of the probabilities of
    each step.
    """
    value = graph.weight / graph.degree[graph.row]
    counts = torch.bincount(graph.row, minlength=graph.num_nodes)
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    size = (graph.num_nodes, graph.num_nodes)
    with warnings.catch_warnings():  # PyTorch calls the format a beta
        warnings.simplefilter('ignore', UserWarning)
        return torch.sparse_csr_tensor(ptr, graph.col, value, size)


def _least_positive(total: Tensor, component: Tensor) -> Tensor:
    r"""Returns, for each node, its component's smallest positive numbers."""
    index = component.unsqueeze(1).expand_as(total)
    least = torch.where(total > 0, total, torch.inf)
    least = torch.full_like(total, torch.inf).scatter_reduce(
        0, index, least, 'amin')
    least = torch.where(least.isinf(), 1., least)
    return least[component]


def returns(graph: Graph, num_steps: int) -> Tensor:
    r"""Returns the probabilities that a walk is back at its start after one
    to :obj:`num_steps` steps, shape :math:`(N, \text{num\_steps})`.

    Raises:
        ValueError: If a component is too large.
    """
    if graph.num_nodes and int(graph.sizes.max()) > DENSE_NODES:
        raise ValueError(
            f"Expected 'data' to have connected components of at most "
            f"{DENSE_NODES} nodes for landing='self' (got "
            f"{int(graph.sizes.max())} nodes)")
    out = torch.ones(graph.num_nodes, num_steps, dtype=torch.float64)
    for stack in stacks(graph):
        if stack.size > 1:  # elsewhere a walk cannot but stay
            out[stack.nodes] = _returns(stack.dense(), num_steps)
    return out


def _returns(adjacency: Tensor, num_steps: int) -> Tensor:
    r"""The symmetric matrix has the diagonals of the random walk's, and two
    powers' sum of products is the diagonal of their product, which saves half
    of the powers.
    """
    root = adjacency.sum(dim=-1).rsqrt()
    step = root.unsqueeze(-1) * adjacency * root.unsqueeze(-2)
    last, power = torch.eye(step.size(-1), dtype=step.dtype), step
    out: list[Tensor] = []
    while len(out) < num_steps:
        out += [(last * power).sum(dim=-1), power.square().sum(dim=-1)]
        last, power = power, power @ step
    return torch.stack(out[:num_steps], dim=-1).flatten(0, 1)
