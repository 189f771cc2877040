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
    vectors = box.detach().cpu().double().numpy()
    whole = lattice.reduce(vectors)
    short = whole @ vectors
    check_volume(vectors, short)
    dual = np.linalg.pinv(short).swapaxes(1, 2)
    eps = 1e-12 if box.dtype == torch.float64 else 1e-6
    images = lattice.closer_images(short, eps)
    # The translations are whole combinations of the short vectors.
    numbers = (images @ dual.swapaxes(1, 2)).round()
    rows = box.new_tensor(whole) @ box
    return torch.cat([rows, box.new_tensor(dual),
                      box.new_tensor(numbers) @ rows], dim=1)


def check_volume(vectors: np.ndarray, short: np.ndarray) -> None:
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
    d, gain, shift = difference.detach(), None, None
    for k in range(2 * d.size(-1), cell.size(-2)):
        vector = cell[..., k, :]
        product = inner(d, vector.detach())
        better = 2 * product.abs() - inner(vector, vector).detach()
        step = vector * product.sign().unsqueeze(-1)
        if gain is None or shift is None:
            gain, shift = better.clamp(min=0), torch.where(
                (better > 0).unsqueeze(-1), step, 0.)
            continue
        shift = torch.where((better > gain).unsqueeze(-1), step, shift)
        gain = torch.maximum(better, gain)
    return difference if shift is None else difference - shift


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
