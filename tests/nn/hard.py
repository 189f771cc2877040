r"""Batches whose clouds have the sizes where things break."""

import torch
from torch import Tensor

from tests.clouds import make_pos
from torch_geometric_erwin import BallTree

SIZES = [1, 2, 3, 63, 64, 65, 1000]


def hard_batch(dim: int = 3, sizes: list[int] | None = None,
               shape: str = 'normal',
               dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    r"""Returns positions and the cloud of each."""
    sizes = SIZES if sizes is None else sizes
    pos = make_pos(shape, sum(sizes), dim, seed=0, dtype=dtype)
    return pos, torch.arange(len(sizes)).repeat_interleave(
        torch.tensor(sizes, dtype=torch.long))


def with_virtual(pos: Tensor, batch: Tensor, ball_size: int) -> BallTree:
    r"""A tree of masked slots everywhere: first, last, whole groups and whole
    balls of them.
    """
    index, mask = [], []
    for cloud in batch.unique():
        points = torch.nonzero(batch == cloud).view(-1)
        real = torch.rand(4 * len(points) + 4 * ball_size) < 0.3
        rows = real.cumsum(0).clamp(1, len(points)) - 1
        real &= real.cumsum(0) <= len(points)
        missing = len(points) - int(real.sum())
        rows = torch.cat([rows, torch.arange(len(points))[
            len(points) - missing:]])
        real = torch.cat([real, torch.ones(missing, dtype=torch.bool)])
        rest = -len(rows) % ball_size
        index.append(points[torch.cat([rows, rows[-1:].expand(rest)])])
        mask.append(torch.cat([real, torch.zeros(rest, dtype=torch.bool)]))
    index, mask = torch.cat(index), torch.cat(mask)
    turned = torch.randperm(len(index) // ball_size).view(-1, 1) * ball_size
    slots = torch.arange(ball_size).flip(0) + turned  # balls trade places
    coarse = torch.arange(len(index) // 2)
    return BallTree.from_permutation(
        pos, batch, index, mask, ball_size=[ball_size, ball_size // 2],
        strides=(2, ), rotated=[slots.view(-1), coarse])
