r"""Differences between positions in a periodic cell."""

import torch
from torch import Tensor


def nearest_image(difference: Tensor, box: Tensor | None) -> Tensor:
    r"""Returns the shortest of the differences between two points' images.

    Args:
        difference: Differences of positions, shape :math:`(*, D)`.
        box: The edges of the cell, broadcastable to it; :obj:`None` if
            there is none.
    """
    if box is None:
        return difference
    return difference - box * torch.round(difference.detach() / box)
