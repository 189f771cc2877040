r"""Centres of mass of neighbouring slots."""

from torch import Tensor

from torch_geometric_erwin.ops.distance import at_least_float


def group_centers(
    pos: Tensor,
    mass: Tensor | None,
    index: Tensor,
    mask: Tensor | None,
    stride: int,
) -> tuple[Tensor, Tensor]:
    r"""Computes the centre of mass of every ``stride`` neighbouring slots.

    The sum runs in halves, the first half of the slots plus the second, so
    that every implementation rounds alike. Differentiable in :obj:`pos`.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        mass: Mass of each point, shape :math:`(N)`; :obj:`None` stands for
            one each.
        index: The point in each slot, shape :math:`(S)`.
        mask: Which slots are real, shape :math:`(S)`; :obj:`None` for all.
        stride: The number of slots of a group.

    Returns:
        The centres, shape :math:`(S / stride, D)`, and the masses, shape
        :math:`(S / stride)`. An empty group has mass zero and centre zero.
    """
    pos = at_least_float(pos)  # in half, masses would end at 2,048
    index = index.view(-1, stride)
    if mask is not None:
        mask = mask.view(-1, stride)
    return means(pos[index], slot_masses(pos, mass, index, mask))


def slot_masses(pos: Tensor, mass: Tensor | None, index: Tensor,
                mask: Tensor | None) -> Tensor:
    r"""Returns the mass in each slot of each group; none in virtual ones."""
    weight = pos.new_ones(index.shape) if mass is None else mass[index]
    return weight if mask is None else weight * mask


def means(pos: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns centres and masses of groups of weighted positions, shape
    :math:`(G, \text{stride}, D)`.
    """
    total = _sum_halves(weight)
    share = weight / total.clamp(min=1).unsqueeze(1)  # no sum can overflow
    return _sum_halves(pos * share.unsqueeze(2)), total


def _sum_halves(x: Tensor) -> Tensor:
    while x.size(1) > 1:
        half = x.size(1) // 2
        x = x[:, :half] + x[:, half:]
    return x.squeeze(1)
