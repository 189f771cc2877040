r"""Short vectors of lattices.

A point's nearest image is found by rounding its coordinates along vectors
that are short, and then trying those few translations that may still bring
it nearer.
"""

import itertools

import numpy as np


def reduce(lattice: np.ndarray) -> np.ndarray:
    r"""Finds short vectors that span the same lattices: no sum or difference
    of some of them is shorter than any vector that takes part in it.

    Args:
        lattice: The vectors of :math:`B` lattices as rows, float64, shape
            :math:`(B, D, D)`; those of directions that are not periodic are
            zero.

    Returns:
        Whole numbers :math:`\mathbf{M}`, int64, shape :math:`(B, D, D)`; the
        short vectors are the rows of :math:`\mathbf{M}` times the lattice.
    """
    count, dim = lattice.shape[:2]
    whole = np.broadcast_to(np.eye(dim), lattice.shape).copy()
    sums = _signs(dim)
    for _ in range(1000):
        before = whole.copy()
        for i, j in itertools.permutations(range(dim), 2):
            rows = whole @ lattice
            times = _divide((rows[:, i] * rows[:, j]).sum(1),
                            (rows[:, j]**2).sum(1)).round()
            shorter = rows[:, i] - times[:, None] * rows[:, j]
            _replace(whole, i, lattice, shorter,
                     whole[:, i] - times[:, None] * whole[:, j])
        for i in range(dim):
            own = sums[sums[:, i] == 1]
            rows = own @ (whole @ lattice)
            best = (rows**2).sum(2).argmin(1)
            each = np.arange(count)
            _replace(whole, i, lattice, rows[each, best],
                     (own @ whole)[each, best])
        if np.array_equal(whole, before):
            break
    zero = np.abs(lattice).sum(2)[:, None] == 0  # takes no part in others
    return np.where(zero, np.eye(dim), whole).astype(np.int64)


def _replace(whole: np.ndarray, i: int, lattice: np.ndarray,
             vector: np.ndarray, numbers: np.ndarray) -> None:
    r"""Replaces the :obj:`i`-th vectors where others are shorter; zero ones
    are not periodic.
    """
    own = ((whole[:, i:i + 1] @ lattice)[:, 0]**2).sum(1)
    better = (vector**2).sum(1) < own * (1 - 1e-9)
    whole[better, i] = numbers[better]


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _signs(dim: int) -> np.ndarray:
    return np.array([*itertools.product((-1., 0., 1.), repeat=dim)])


def closer_images(short: np.ndarray, eps: float = 1e-12) -> np.ndarray:
    r"""Finds the translations that may bring a difference nearer to zero
    whose coordinates along the short vectors are in :math:`[-1/2, 1/2]`.

    Such a difference is :math:`\mathbf{d} = \sum_i f_i \mathbf{b}_i`, so that
    :math:`2 \, \mathbf{d} \cdot \mathbf{v} \leq \sum_i | \mathbf{b}_i \cdot
    \mathbf{v} |`. A translation :math:`\mathbf{v}` never serves better than
    another one :math:`\mathbf{u}`, or none, if that is at most :math:`|
    \mathbf{v} |^2 - | \mathbf{u} |^2` for their difference.

    Args:
        short: What :func:`reduce` leads to, shape :math:`(B, D, D)`.
        eps: How precise that is.

    Returns:
        One of each such :math:`\mathbf{v}` and :math:`-\mathbf{v}`, shortest
        first, padded by zeros, shape :math:`(B, K, D)`.
    """
    count, dim = short.shape[:2]
    if count == 0:
        return np.zeros((0, 0, dim))
    reach = _most_numbers(short)
    numbers = np.array([*itertools.product(
        *(np.arange(-x, x + 1) for x in reach))])
    numbers = numbers[len(numbers) // 2 + 1:]  # the others are opposite
    vectors = numbers @ short
    square = (vectors**2).sum(2)
    useful = _reach(vectors, short) * (1 - eps) > square
    vectors, square = _first(vectors, np.where(useful, square, np.inf))
    length = square
    for k in range(vectors.shape[1]):
        for other in (vectors[:, k:k + 1], -vectors[:, k:k + 1]):
            apart = _reach(vectors - other, short) * (1 - eps)
            with np.errstate(invalid='ignore'):
                beaten = apart <= square - length[:, k:k + 1]
            beaten[:, :k + 1] = False
            square = np.where(beaten, np.inf, square)
    return _first(vectors, square)[0]


def _most_numbers(short: np.ndarray) -> np.ndarray:
    r"""Returns how many of each short vector it can take, at most: one in up
    to three dimensions, where these are reduced in Minkowski's sense.
    """
    dim = short.shape[1]
    if dim <= 3:
        return np.ones(dim)
    dual = np.linalg.norm(np.linalg.pinv(short), axis=1)
    far = 0.5 * np.sqrt((short**2).sum((1, 2)))  # radius of what is covered
    return np.floor(0.5 + far[:, None] * dual + 1e-9).max(0)


def _reach(vectors: np.ndarray, short: np.ndarray) -> np.ndarray:
    return np.abs(vectors @ short.swapaxes(1, 2)).sum(2)


def _first(vectors: np.ndarray,
           square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Sorts by length, and leaves out what is infinitely long."""
    order = square.argsort(axis=1, kind='stable')
    order = order[:, :int(np.isfinite(square).sum(1).max())]
    square = np.take_along_axis(square, order, axis=1)
    vectors = np.take_along_axis(vectors, order[..., None], axis=1)
    return np.where(np.isfinite(square)[..., None], vectors, 0.), square
