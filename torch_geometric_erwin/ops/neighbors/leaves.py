r"""The leaves of a tree, as the search wants them."""

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import LevelSlots, where_true


def cut_leaves(pos: Tensor, slots: LevelSlots,
               leaf_size: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Leaves the virtual slots out.

    Args:
        pos: Positions, shape :math:`(N, D)`.
        slots: A tree's only level, with balls of :obj:`leaf_size`.
        leaf_size: The number of slots of a leaf.

    Returns:
        The positions in the order of the tree, shape :math:`(N, D)`, their
        numbers, shape :math:`(N)`, and where each of :math:`L` leaves
        begins, shape :math:`(L + 1)`.
    """
    index, mask = slots.index[0], slots.mask
    if pos.device.type == 'cpu':
        return _on_one_thread(pos, index, mask, leaf_size)
    if mask is None:
        sizes = torch.full((len(index) // leaf_size, ), leaf_size,
                           device=pos.device)
    else:
        sizes = mask.view(-1, leaf_size).sum(1)
        index = index[where_true(mask, pos.size(0))]
    leaf_ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return pos[index], index, leaf_ptr


def _on_one_thread(pos: Tensor, index: Tensor, mask: Tensor | None,
                   leaf_size: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""After a parallel torch operation OpenMP's threads spin for
    milliseconds, and would take the cores from those that search, where
    these are not the same.
    """
    order = index.numpy()
    sizes = np.full(len(order) // leaf_size, leaf_size)
    if mask is not None:
        order = order[mask.numpy()]
        sizes = np.add.reduce(mask.numpy().reshape(-1, leaf_size), axis=1)
    leaf_ptr = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=leaf_ptr[1:])
    return (torch.from_numpy(pos.numpy()[order]), torch.from_numpy(order),
            torch.from_numpy(leaf_ptr))
