r"""The levels of an implicit tree over leaves, with their boxes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_geometric_erwin.ops.periodic import inner


@dataclass(frozen=True)
class Level:
    r"""The nodes of one depth; leaves above it are repeated in it.

    Shapes: :math:`n` nodes.

    Args:
        begin: First leaf of each node, :math:`[n]`.
        end: Past its last leaf, :math:`[n]`; :obj:`begin` in empty clouds.
        child: Its first child in the next level, :math:`[n]`.
        splits: Whether it has two children, 0 or 1, :math:`[n]`.
        low: Least coordinates of its points, :math:`[n, D]`.
        high: Greatest coordinates, :math:`[n, D]`.
        least: Smallest number of its points, :math:`[n]`.
    """
    begin: Tensor
    end: Tensor
    child: Tensor
    splits: Tensor
    low: Tensor
    high: Tensor
    least: Tensor

    @property
    def flat(self) -> Tensor:
        r"""Whether all points of a node are in one place, :math:`[n]`."""
        return (self.low == self.high).all(dim=1)

    def descend(self, place: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        r"""Replaces pairs with nodes by pairs with their children."""
        count = 1 + self.splits[node]
        first = self.child[node] - count.cumsum(0) + count
        place = place.repeat_interleave(count)
        step = torch.arange(place.numel(), device=place.device)
        return place, step + first.repeat_interleave(
            count, output_size=place.numel())


def levels(pos: Tensor, leaf_ptr: Tensor, cloud_leaf: Tensor,
           id: Tensor) -> list[Level]:
    r"""All levels, from the clouds down to single leaves."""
    ranges = [(cloud_leaf[:-1], cloud_leaf[1:])]
    depth = int(cloud_leaf.diff().max() - 1).bit_length()
    for _ in range(depth):
        ranges.append(halves(*ranges[-1]))
    leaf = ranges[-1][0].clamp(max=leaf_ptr.numel() - 2)
    low = over_leaves('amin', pos, leaf_ptr)[leaf]
    high = over_leaves('amax', pos, leaf_ptr)[leaf]
    least = over_leaves('amin', id[:, None], leaf_ptr)[leaf, 0]
    found: list[Level] = []
    for begin, end in reversed(ranges):
        splits = (end - begin > 1).long()
        child = torch.arange(splits.numel(), device=pos.device)
        if found:
            child = (splits + 1).cumsum(0) - splits - 1
            low = torch.minimum(low[child], low[child + splits])
            high = torch.maximum(high[child], high[child + splits])
            least = torch.minimum(least[child], least[child + splits])
        found.append(Level(begin, end, child, splits, low, high, least))
    return found[::-1]


def halves(begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    r"""Children of ranges of leaves; single leaves are their own."""
    splits = end - begin > 1
    middle = begin + (end - begin) // 2
    keep = torch.stack([torch.ones_like(splits), splits], dim=1)
    first_end = torch.where(splits, middle, end)
    return (torch.stack([begin, middle], dim=1)[keep],
            torch.stack([first_end, end], dim=1)[keep])


def over_leaves(reduce: str, value: Tensor, leaf_ptr: Tensor) -> Tensor:
    r"""Reduces rows of points to rows of leaves."""
    num_leaves = leaf_ptr.numel() - 1
    leaf = torch.arange(num_leaves, device=value.device).repeat_interleave(
        leaf_ptr.diff(), output_size=value.size(0))
    return value.new_zeros(num_leaves, value.size(1)).scatter_reduce(
        0, leaf[:, None].expand_as(value), value, reduce, include_self=False)


def nearest_in_box(x: Tensor, low: Tensor, high: Tensor,
                   translation: Tensor | None) -> Tensor:
    r"""Squared distances from points to boxes, never more than to a point
    inside as :meth:`squared_distance` computes it: rounding is monotone.
    """
    after, before = low - x, high - x
    if translation is not None:
        after, before = after + translation, before + translation
    gap = torch.maximum(after, -before).clamp(min=0)
    return inner(gap, gap)
