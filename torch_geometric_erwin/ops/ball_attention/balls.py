r"""What attention needs to know of a tree."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Balls:
    r"""The slots of one orientation, :math:`S` in all.

    Args:
        size: The number of slots of a ball.
        index: The point in each slot, shape :math:`(S)`.
        inverse: The slot of each point, shape :math:`(N)`.
        mask: Which slots are real, shape :math:`(S)`; :obj:`None` if all
            are.
        box: The periodic cell that each ball lies in, edges or rows, see
            :mod:`torch_geometric_erwin.ops.periodic`, shape :math:`(S /
            \text{size}, D)` or :math:`(S / \text{size}, R, D)`;
            :obj:`None` if there is none.
    """
    size: int
    index: Tensor
    inverse: Tensor
    mask: Tensor | None = None
    box: Tensor | None = None

    def split(self, x: Tensor) -> Tensor:
        r"""Brings rows :math:`(N, \ldots)` into balls :math:`(S /
        \text{size}, \text{size}, \ldots)`.
        """
        return x[self.index.view(-1, self.size)]

    def join(self, x: Tensor) -> Tensor:
        r"""Takes each point's row from its slot: the inverse of
        :meth:`split`.
        """
        return x.reshape(-1, *x.shape[2:])[self.inverse]

    def visible(self) -> Tensor | None:
        r"""Returns which slots can be attended to, shape :math:`(S /
        \text{size}, \text{size})`. In a ball without points, which nobody
        reads, it is all, so that no softmax runs over nothing.
        """
        if self.mask is None:
            return None
        mask = self.mask.view(-1, self.size)
        return mask | ~mask.any(1, keepdim=True)


def no_autocast(x: Tensor) -> torch.autocast:
    r"""Keeps :class:`torch.autocast` from lowering the precision further."""
    return torch.autocast(x.device.type, enabled=False)
