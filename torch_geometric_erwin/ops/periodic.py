r"""Positions and differences in periodic cells.

A *box* is what users give: the edges of rectangular cells, shape :math:`(*,
D)`, or the vectors of lattices as rows, shape :math:`(*, D, D)`, where those
of directions that are not periodic are zero.

A *cell* is what computations need, made once by :func:`make_cell`: the edges
as they are, or :math:`R = 2 D + K` rows, shape :math:`(*, R, D)`: :math:`D`
short vectors that span the lattice, the :math:`D` rows that give coordinates
along these by inner products, and the :math:`K` translations that
:func:`~torch_geometric_erwin.ops.lattice.closer_images` finds.
"""

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops import lattice


def make_cell(box: Tensor) -> Tensor:
    r"""Makes cells, differentiable in the vectors, of boxes in at least
    float32, shape :math:`(B, D)` or :math:`(B, D, D)`.

    Raises:
        ValueError: If the vectors of a lattice do not span it.
    """
    if box.dim() == 2:
        return box
    whole, dual, numbers = reduce_lattice(box.detach())
    rows = whole @ box
    return torch.cat([rows, dual, numbers @ rows], dim=1)


@torch.library.custom_op('torch_geometric_erwin::reduce_lattice',
                         mutates_args=())
def reduce_lattice(box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns what turns vectors into short ones, shape :math:`(B, D, D)`,
    what gives coordinates along these, of the same shape, and what turns
    these into translations, shape :math:`(B, K, D)`. Opaque to the compiler.
    """
    vectors = box.cpu().double().numpy()
    if not np.isfinite(vectors).all():
        raise ValueError("Expected 'box' to have finite vectors (got others)")
    whole = lattice.reduce(vectors)
    short = whole @ vectors
    check_volume(vectors, short)
    dual = np.linalg.pinv(short).swapaxes(1, 2)
    dual[~short.any(axis=2)] = 0  # and not nearly so
    eps = 1e-12 if box.dtype == torch.float64 else 1e-6
    images = lattice.closer_images(short, eps)
    # The translations are whole combinations of the short vectors.
    numbers = (images @ dual.swapaxes(1, 2)).round()
    if numbers.shape[1] == 0:  # one, to be the largest of something
        numbers = np.zeros((len(whole), 1, whole.shape[1]))
    return box.new_tensor(whole), box.new_tensor(dual), box.new_tensor(numbers)


@reduce_lattice.register_fake
def _fake_reduce(box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count, dim = box.shape[:2]
    images = torch.library.get_ctx().new_dynamic_size()
    return (torch.empty_like(box), torch.empty_like(box),
            box.new_empty(count, images, dim))


def check_volume(vectors: np.ndarray, short: np.ndarray) -> None:
    r"""Checks that vectors span as many dimensions as there are of them."""
    length = np.linalg.norm(vectors, axis=2)
    least = 1e-6 * length.max(axis=1, initial=0., keepdims=True)
    flat = ((length > 0) & (np.linalg.norm(short, axis=2) <= least)).any(1)
    if flat.any():
        raise ValueError(f"Expected 'box' to have linearly independent "
                         f"vectors (got {vectors[flat][0].tolist()})")


def short_vectors(cell: Tensor) -> Tensor:
    r"""Returns the vectors that span the cells, shape :math:`(*, D, D)`."""
    return cell[..., :cell.size(-1), :]


def fractions(pos: Tensor, cell: Tensor) -> Tensor:
    r"""Returns coordinates along the short vectors (or edges), shape
    :math:`(*, D)`: zero where a direction is not periodic.
    """
    if cell.dim() <= pos.dim():
        return pos / cell
    dim = pos.size(-1)
    return inner(pos.unsqueeze(-2), cell[..., dim:2 * dim, :])


def translations(numbers: Tensor, cell: Tensor) -> Tensor:
    r"""Returns the sums of so many short vectors (or edges)."""
    if cell.dim() <= numbers.dim():
        return numbers * cell
    return inner(numbers.unsqueeze(-2),
                 short_vectors(cell).transpose(-1, -2))


def beyond(pos: Tensor, cell: Tensor, shift: float) -> Tensor:
    r"""Returns which coordinates of positions in their cells leave them on
    the far side, if these are shifted by a part of all vectors, shape
    :math:`(N, D)`.
    """
    by = rounded(shift, pos.dtype)
    if cell.dim() <= pos.dim():
        return (pos + cell * by >= cell).to(pos.dtype)
    return (fractions(pos, cell) + by >= 1).to(pos.dtype)


def rounded(value: float, dtype: torch.dtype) -> float:
    return value if dtype == torch.float64 else float(np.float32(value))


def inner(a: Tensor, b: Tensor) -> Tensor:
    r"""Sums products over the last axis one after the other, so that all
    implementations round alike.
    """
    total = a[..., 0] * b[..., 0]
    for i in range(1, a.size(-1)):
        total = total + a[..., i] * b[..., i]
    return total


def nearest_image(difference: Tensor, cell: Tensor | None) -> Tensor:
    r"""Returns the shortest of the differences between two points' images.

    Args:
        difference: Differences of positions, shape :math:`(*, D)`.
        cell: Edges, broadcastable to it, or rows, with one axis more;
            :obj:`None` if there are none.
    """
    if cell is None:
        return difference
    fixed = cell.detach()
    times = torch.round(fractions(difference.detach(), fixed))
    difference = difference - translations(times, cell)
    if cell.dim() <= times.dim():
        return difference
    images = cell[..., 2 * times.size(-1):, :]
    product = inner(difference.detach().unsqueeze(-2), images.detach())
    gain = 2 * product.abs() - inner(images, images).detach()
    gain, best = gain.max(-1, keepdim=True)
    sign = product.gather(-1, best).sign() * (gain > 0)
    best = best.unsqueeze(-1).expand(*best.shape, times.size(-1))
    images = images.expand(*product.shape, times.size(-1))
    return difference - sign * images.gather(-2, best).squeeze(-2)


def wrap(pos: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    r"""Moves positions into the cells that edges or short vectors span.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        cell: The cell of each, shape :math:`(N, D)` or :math:`(N, R, D)`.

    Returns:
        The positions, in the type of :obj:`pos`, and how many short vectors
        (or edges) they were moved by, shape :math:`(N, D)`: what was added
        are minus as many.
    """
    times = torch.floor(fractions(pos.detach().to(cell.dtype), cell.detach()))
    out = pos.to(cell.dtype) - translations(times, cell)
    # Rounding may leave it on the far side.
    again = torch.floor(fractions(out.detach(), cell.detach()))
    out = out - translations(again, cell)
    return out.to(pos.dtype), times + again
