import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

RELATIVE, ABSOLUTE = 1e-6, 1e-14  # residuals that count as converged
Vectors = tuple[np.ndarray, np.ndarray]  # eigenvalues and eigenvectors


class Problem:
    r"""A normalized Laplacian, whose eigenvector of eigenvalue zero is
    :obj:`null`.
    """
    def __init__(self, adjacency: Any, count: int) -> None:
        from scipy import sparse
        degree = adjacency.sum(axis=1)
        self.adjacency, self.degree, self.count = adjacency, degree, count
        self.root = np.sqrt(degree)
        scale = sparse.diags_array(1 / self.root)
        self.normalized = (scale @ adjacency @ scale).tocsr()
        self.null = self.root / np.linalg.norm(self.root)

    def project(self, x: np.ndarray) -> np.ndarray:
        return x - self.null * (self.null @ x)

    def lanczos(self, apply: Callable, tol: float,
                **kwargs: Any) -> Vectors | None:
        r"""Finds the largest eigenvalues of an operator, each as often as it
        occurs: Lanczos' method may overlook copies of an eigenvalue, so it
        runs again on what is left until that holds nothing larger.
        """
        found = self._lanczos(apply, self.count, tol=tol, **kwargs)
        while found is not None:
            values, vectors = found

            def left(x: np.ndarray, u: np.ndarray = vectors) -> np.ndarray:
                x = x.ravel() - u @ (u.T @ x.ravel())
                y = apply(x)
                return y - u @ (u.T @ y)

            probe = self._lanczos(left, 1, tol=tol**0.5)
            if probe is not None and probe[0][0] <= values[-1] * (1 + 1e-7):
                break
            more = self._lanczos(left, self.count, tol=tol, **kwargs)
            found = None if more is None else self._merge(found, more)
        return found

    def _merge(self, *pairs: Vectors) -> Vectors:
        values, vectors = map(np.hstack, zip(*pairs, strict=True))
        order = np.argsort(-values, kind='stable')[:self.count]
        return values[order], vectors[:, order]

    def _lanczos(self, apply: Callable, count: int,
                 **kwargs: Any) -> Vectors | None:
        from scipy.sparse.linalg import (
            ArpackNoConvergence,
            LinearOperator,
            eigsh,
        )
        n = len(self.degree)
        generator = np.random.default_rng(0)  # the same in every call
        if 'rng' in inspect.signature(eigsh).parameters:
            kwargs['rng'] = generator
        start = self.project(generator.standard_normal(n))
        operator = LinearOperator((n, n), apply, dtype=np.float64)
        try:
            values, vectors = eigsh(operator, count, which='LA', v0=start,
                                    **kwargs)
        except ArpackNoConvergence:
            return None
        return values[::-1], vectors[:, ::-1]

    def polish(self, inverse: Callable,
               pairs: Vectors | None) -> Vectors | None:
        r"""Takes another step of inverse iteration with all vectors at once.
        It damps errors of high frequency, which a tolerance for the inverse
        hardly sees, but the Laplacian does.
        """
        if pairs is None:
            return None
        image = np.column_stack([inverse(vector) for vector in pairs[1].T])
        basis = np.linalg.qr(image)[0]
        small = basis.T @ (basis - self.normalized @ basis)
        values, rotation = np.linalg.eigh(small)
        return values, basis @ rotation

    def check(self, pairs: Vectors | None) -> Vectors | None:
        r"""Returns the pairs if they have converged."""
        if pairs is None:
            return None
        vectors = pairs[1]
        image = vectors - self.normalized @ vectors
        values = (vectors * image).sum(axis=0)
        residual = np.linalg.norm(image - vectors * values, axis=0)
        if (residual > RELATIVE * values + ABSOLUTE).any():
            return None
        order = np.argsort(values)
        return values[order], vectors[:, order]
