r"""The lowest eigenvectors of large sparse graph Laplacians.

Three ways lead to the same vectors, and the cheapest that works is taken:

- Where the Laplacian has a sparse factorization, as of trees, rings, grids
  and meshes, Lanczos' method runs on its inverse. It does not mind tiny
  eigenvalues.
- Other graphs are mostly well connected, and then the eigenvalues are far
  enough apart for Lanczos' method on the adjacency matrix.
- If that does not converge, it runs on the inverse, applied by conjugate
  gradients. These are preconditioned by the factorization of a maximum
  spanning tree with all of the diagonal, which takes care of the long chains
  and pendant trees that bring about tiny eigenvalues.
"""

from typing import Any

import numpy as np

from torch_geometric_erwin.transforms.lanczos import Problem, Vectors

EXTRA = (2, 16)  # how far beyond the last axis to look for equal eigenvalues
EQUAL = 1e-5  # relative difference of eigenvalues that count as equal
MAX_CYCLES = 5000  # so many independent cycles are cheap to factorize
MAX_FILL = 3e7  # as many numbers in the factors are


def lowest_eigenpairs(adjacency: Any, num_axes: int) -> Vectors:
    r"""Returns at least the :obj:`num_axes` lowest nonzero eigenvalues of
    :math:`I - D^{-1/2} A D^{-1/2}` and their eigenvectors.

    Args:
        adjacency: The symmetric :class:`scipy.sparse.csr_array` :math:`A` of
            a connected graph of :math:`n` nodes, without a diagonal.
        num_axes: Must be far below :math:`n`.

    Shapes:
        - **output:** eigenvalues :math:`(K)`, ascending, and orthonormal
          eigenvectors :math:`(n, K)`

    Raises:
        RuntimeError: If no method converges.
    """
    methods = METHODS if not is_cheap_to_factorize(adjacency) else (
        by_factorization, )
    for extra in EXTRA:
        problem = Problem(adjacency, num_axes + extra)
        pairs, methods = _first_that_converges(methods, problem)
        values = pairs[0]
        if values[-1] - values[num_axes - 1] > EQUAL * values[-1]:
            break  # the last axis' eigenspace is complete
    return pairs


def _first_that_converges(methods: tuple,
                          problem: Problem) -> tuple[Vectors, tuple]:
    for i, method in enumerate(methods):
        pairs = problem.check(method(problem))
        if pairs is not None:
            return pairs, methods[i:]
    raise RuntimeError(f"Eigenvectors of a connected graph of "
                       f"{len(problem.degree)} nodes did not converge")


def is_cheap_to_factorize(adjacency: Any) -> bool:
    r"""Guesses whether the Laplacian has a sparse factorization: if few edges
    close cycles, or if the graph is narrow. Removing a breadth-first level
    cuts a graph in two, so the widest level tells the size of separators.
    """
    from scipy.sparse.csgraph import dijkstra
    n = adjacency.shape[0]
    if adjacency.nnz // 2 - n < MAX_CYCLES:
        return True
    hops = dijkstra(adjacency, unweighted=True, indices=0)
    hops = dijkstra(adjacency, unweighted=True, indices=hops.argmax())
    width = float(np.bincount(hops.astype(np.int64)).max())
    return n * np.log2(n) + 10 * width**2 < MAX_FILL


def factorize(matrix: Any) -> Any:
    r"""Factorizes a symmetric, diagonally dominant matrix; such need no
    pivoting.
    """
    from scipy.sparse.linalg import splu
    return splu(matrix.tocsc(), permc_spec='MMD_AT_PLUS_A',
                diag_pivot_thresh=0., options={'SymmetricMode': True})


def by_factorization(problem: Problem) -> Vectors | None:
    r"""The Laplacian is singular, but any node may be held at zero; what is
    left is regular, and the projection takes back the choice.
    """
    from scipy import sparse
    laplacian = sparse.diags_array(problem.degree) - problem.adjacency
    keep = np.delete(np.arange(len(problem.degree)), problem.degree.argmax())
    factors = factorize(laplacian.tocsr()[keep][:, keep])

    def apply(x: np.ndarray) -> np.ndarray:
        x = problem.project(x.ravel()) * problem.root
        y = np.zeros_like(x)
        y[keep] = factors.solve(x[keep])
        return problem.project(y * problem.root)

    return problem.lanczos(apply, tol=1e-13)


def by_adjacency(problem: Problem) -> Vectors | None:
    def apply(x: np.ndarray) -> np.ndarray:
        x = problem.project(x.ravel())
        return problem.normalized @ x + x  # at least zero

    return problem.lanczos(apply, tol=1e-10, maxiter=15,
                           ncv=2 * problem.count + 20)


def by_conjugate_gradients(problem: Problem) -> Vectors | None:
    from scipy.sparse.linalg import LinearOperator, cg
    n = len(problem.degree)
    factors = factorize(dominant_tree(problem))
    laplacian = LinearOperator(
        (n, n), lambda x: problem.project(x - problem.normalized @ x))
    inverse = LinearOperator(
        (n, n), lambda x: problem.project(factors.solve(x)))

    def apply(x: np.ndarray) -> np.ndarray:
        x = problem.project(x.ravel())
        return problem.project(
            cg(laplacian, x, rtol=1e-10, maxiter=3000, M=inverse)[0])

    return problem.polish(apply, problem.lanczos(apply, tol=1e-9))


def dominant_tree(problem: Problem) -> Any:
    r"""Returns the normalized Laplacian with only the edges of a maximum
    spanning tree, but all of its diagonal.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import minimum_spanning_tree
    cost = problem.normalized.copy()
    cost.data = 2 - cost.data
    tree = minimum_spanning_tree(cost)
    tree.data = 2 - tree.data
    return sparse.eye_array(len(problem.degree)) - tree - tree.T


METHODS = (by_adjacency, by_conjugate_gradients)  # fastest first
