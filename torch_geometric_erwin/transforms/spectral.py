import torch
from torch import Tensor

from torch_geometric_erwin.transforms.graph import Graph, Stack, stacks

DENSE_NODES = 500  # beyond, the sparse solver is several times as fast
EQUAL = 1e-5  # relative difference of eigenvalues that count as equal
TIE = 1e-6  # relative difference of norms that count as equal
Pairs = tuple[Tensor, Tensor, Tensor]  # eigenvalues, vectors, degrees


def spectral_axes(graph: Graph, num_axes: int,
                  commute: bool) -> Tensor:
    r"""Returns the first nontrivial eigenvectors of each component's
    random-walk Laplacian, shape :math:`(N, \text{num\_axes})`, with those
    that a component does not have at zero.

    Args:
        graph: The graph.
        num_axes: The number of eigenvectors.
        commute: Whether to divide each by the root of its eigenvalue.
    """
    out = torch.zeros(graph.num_nodes, num_axes, dtype=torch.float64)
    for stack in stacks(graph):
        if stack.size > 1:
            dense = stack.size <= max(DENSE_NODES, 8 * num_axes)
            solve = _solve_dense if dense else _solve_sparse
            axes = _finish(*solve(stack, num_axes), num_axes, commute)
            out[stack.nodes, :axes.size(-1)] = axes.flatten(0, 1)
    return out


def _solve_dense(stack: Stack, _: int) -> Pairs:
    adjacency = stack.dense()
    degree = adjacency.sum(dim=-1)
    root = degree.rsqrt()
    laplacian = (torch.eye(stack.size, dtype=root.dtype)
                 - root.unsqueeze(-1) * adjacency * root.unsqueeze(-2))
    values, vectors = torch.linalg.eigh(laplacian)
    return values[:, 1:], vectors[..., 1:], degree


def _solve_sparse(stack: Stack, num_axes: int) -> Pairs:
    try:
        from scipy.sparse import coo_array
    except ImportError as error:
        raise ImportError(
            f"The eigenvectors of a connected graph of more than "
            f"{DENSE_NODES} nodes need SciPy (got {stack.size} nodes): 'pip "
            f"install torch_geometric_erwin[graphs]'") from error
    from torch_geometric_erwin.transforms.sparse_spectral import (
        lowest_eigenpairs,
    )
    index = (stack.row.numpy(), stack.col.numpy())
    adjacency = coo_array((stack.weight.numpy(), index),
                          shape=(stack.size, stack.size)).tocsr()
    values, vectors = lowest_eigenpairs(adjacency, num_axes)
    degree = torch.from_numpy(adjacency.sum(axis=1))
    return (torch.from_numpy(values)[None],
            torch.from_numpy(vectors)[None], degree[None])


def _finish(values: Tensor, vectors: Tensor, degree: Tensor, num_axes: int,
            commute: bool) -> Tensor:
    vectors = vectors * degree.rsqrt().unsqueeze(-1)
    axes = canonical_axes(values, vectors, num_axes)
    if commute:
        values = values[:, :axes.size(-1)].clamp(min=1e-15)
        axes = axes * values.rsqrt().unsqueeze(-2)
    return axes


def canonical_axes(values: Tensor, vectors: Tensor,
                   num_axes: int) -> Tensor:
    r"""Chooses a basis of each eigenspace that does not depend on the
    solver's, by a pivoted QR decomposition of the projector: each axis is
    the projection of the node that the space tells most about. A single
    eigenvector thus gets the sign that makes its largest entry positive.

    Args:
        values: Eigenvalues in ascending order, shape :math:`(B, K)`.
        vectors: Their vectors, orthonormal but for one factor per node,
            shape :math:`(B, n, K)`.
        num_axes: How many to return.

    Shapes:
        - **output:** :math:`(B, n, \min(K, \text{num\_axes}))`
    """
    group = values.diff(dim=-1, prepend=values[:, :1]) > (
        EQUAL * values.abs() + 1e-13)
    group = group.cumsum(dim=-1)
    clouds, axes = torch.arange(len(values)), []
    for i in range(min(num_axes, values.size(-1))):
        space = vectors * (group == group[:, i:i + 1]).unsqueeze(-2)
        norm = space.norm(dim=-1)
        largest = norm.max(dim=-1, keepdim=True)[0]
        pivot = (norm >= (1 - TIE) * largest).int().argmax(dim=-1)
        direction = space[clouds, pivot]
        direction = direction / direction.norm(dim=-1, keepdim=True)
        axes.append((space @ direction.unsqueeze(-1)).squeeze(-1))
        vectors = (vectors - axes[-1].unsqueeze(-1)
                   * direction.unsqueeze(-2))
    return torch.stack(axes, dim=-1)
