r"""Periodic cells, as a neighbour search wants them."""

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops import lattice
from torch_geometric_erwin.ops.periodic import check_volume, inner

MOST_IMAGES = 2**31


@dataclass(frozen=True)
class Cells:
    r"""The lattices of :math:`B` clouds, in float64, however precise the
    points are.

    Args:
        vectors: Short vectors that span them as rows, zero ones for
            directions that are not periodic, :math:`[B, D, D]`.
        dual: Rows that give coordinates along these by inner products,
            :math:`[B, D, D]`.
        whole: The vectors as whole combinations of their user's, int64,
            :math:`[B, D, D]`.
        lengths: Of the shortest and of the longest of the vectors.
        full: Whether all directions are periodic.
    """
    vectors: Tensor
    dual: Tensor
    whole: Tensor
    lengths: tuple[float, float]
    full: bool

    @classmethod
    def of_box(cls, box: Tensor) -> 'Cells':
        r"""Makes them of edges, :math:`[B, D]`, or vectors,
        :math:`[B, D, D]`.

        Raises:
            ValueError: If the vectors of a lattice do not span it.
        """
        given = box.detach().cpu().double().numpy()
        found = _of_numbers(given.tobytes(), given.shape)
        if box.device.type == 'cpu':
            return found
        rows = [x.to(box.device) for x in (found.vectors, found.dual,
                                           found.whole)]
        return replace(found, vectors=rows[0], dual=rows[1], whole=rows[2])

    def translate(self, cloud: Tensor, numbers: Tensor,
                  dtype: torch.dtype) -> Tensor:
        r"""Sums of so many short vectors, int64 :math:`[P, D]`, of clouds,
        :math:`[P]`, rounded once.
        """
        vectors = self.vectors[cloud].transpose(-1, -2)
        return inner(numbers.double().unsqueeze(-2), vectors).to(dtype)

    def shifts(self, cloud: Tensor, numbers: Tensor) -> Tensor:
        r"""The same translations in the users' vectors, int64
        :math:`[P, D]`.
        """
        return inner(numbers.unsqueeze(-2),
                     self.whole[cloud].transpose(-1, -2))

    def wrap(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        r"""Moves positions, :math:`[N, D]`, into their clouds' cells.

        Returns:
            The positions, and how many of their users' vectors they were
            moved by, int64 :math:`[N, D]`, which were subtracted;
            :obj:`None` where no position had to move.
        """
        one = self.dual.size(0) == 1
        dual = self.dual if one else self.dual[batch]
        wide = pos.double()
        times = torch.floor(inner(wide.unsqueeze(-2), dual))
        if not bool(times.any()):
            return pos, None
        vectors, whole = (
            (x if one else x[batch]).double().transpose(-1, -2)
            for x in (self.vectors, self.whole))
        times = times.unsqueeze(-2)
        return ((wide - inner(times, vectors)).to(pos.dtype),
                inner(times, whole).long())

    def supercell(self, cells: np.ndarray) -> np.ndarray:
        r"""Multiples of the short vectors, int64 :math:`[B, D]`, so that as
        many cells, :math:`[B]`, make blocks without long edges.
        """
        length = self.vectors.norm(dim=2).cpu().numpy()
        length[length == 0] = np.inf
        count = np.ones(length.shape, dtype=np.int64)
        while (short := (count.prod(1, dtype=float) < cells)
               & np.isfinite(length).any(1)).any():
            rows = short.nonzero()[0]
            best = (count * length)[rows].argmin(1)
            count[rows, best] += 1 + count[rows, best] // 8  # soon a lot
        return count


@functools.lru_cache(maxsize=16)
def _of_numbers(numbers: bytes, shape: tuple[int, ...]) -> Cells:
    r"""Remembers cells: in most simulations they stay the same."""
    given = np.frombuffer(numbers).reshape(shape)
    eye = np.eye(shape[-1])
    if given.ndim == 2:
        vectors, whole = given[..., None] * eye, None
        dual, length = (1 / given)[..., None] * eye, given
    else:
        whole, vectors = _short(given), given
        if whole is not None:
            vectors = whole @ given
            check_volume(given, vectors)
        length = np.sqrt((vectors**2).sum(2))
        if (length > 0).all():
            dual = np.linalg.inv(vectors).swapaxes(1, 2)
        else:
            dual = np.linalg.pinv(vectors).swapaxes(1, 2)
            dual[length == 0] = 0  # and not nearly so
            length = length[length > 0]
    if whole is None:
        whole = np.broadcast_to(eye, vectors.shape).astype(np.int64)
    rows = [torch.from_numpy(np.array(x, order='C'))
            for x in (vectors, dual, whole)]
    return Cells(rows[0], rows[1], rows[2], (
        float(length.min(initial=np.inf)), float(length.max(initial=0.))),
        length.size == vectors.shape[0] * vectors.shape[1])


def _short(given: np.ndarray) -> np.ndarray | None:
    r"""How to make vectors short; :obj:`None` if all of them are."""
    square = (given**2).sum(2)
    off = np.abs(given @ given.swapaxes(1, 2))
    off[:, range(given.shape[1]), range(given.shape[1])] = 0
    # With angles this near to right ones no sum is shorter.
    if (2 * off.sum(2) <= square * (1 + 1e-6)).all():
        return None
    sums = _sums(given.shape[1])
    length = ((sums @ given)**2).sum(2)[:, :, None]
    longer = length >= square[:, None] * (1 - 1e-6)
    if (longer | (sums == 0)).all():
        return None
    # Vectors that are zero may have been added, and do not count.
    return lattice.reduce(given) * (square > 0)[:, None]


@functools.cache
def _sums(dim: int) -> np.ndarray:
    signs = itertools.product((-1., 0., 1.), repeat=dim)
    return np.array([*signs])


def too_many_images() -> ValueError:
    return ValueError("Expected fewer than 2^31 images of a cell to be within "
                      "reach (got more: is 'r' or 'k' meant to be so large?)")
