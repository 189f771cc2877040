r"""Splits every node of a depth at once, and lays points out in slots.

See `csrc/layout.h` for the rules, which are the same.
"""

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.counts import LevelCounts


class Layout:
    r"""Where the points of a batch lie in the slots of every level.

    Args:
        levels: The counts of the levels that share a tree.
        device: The device to work on.
    """
    def __init__(self, levels: list[LevelCounts],
                 device: torch.device) -> None:
        self.levels = levels
        self.device = device
        self._slots: list[Tensor] = []

    def slots(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the slot of every point of a level in the order of the
        tree, the mask of real slots, and every slot's point: of a virtual
        slot, the one before it.
        """
        if not self._slots:
            self._slots = self._lay_out()
        slot = self._slots[i]
        mask = torch.zeros(self.levels[i].num_slots, dtype=torch.bool,
                           device=self.device)
        mask[slot] = True
        return slot, mask, mask.cumsum(0) - 1

    def first(self, i: int) -> Tensor:
        r"""Returns the first point of every ball of a level."""
        level = self.levels[i]
        starts = torch.arange(int(level.balls.sum()),
                              device=self.device) * level.ball_size
        return torch.searchsorted(self._slots[i], starts)

    def order(self, lists: Tensor, pos: Tensor) -> Tensor:
        r"""Splits down to single points; returns them in order."""
        node = _Nodes(self.levels, self.device)
        for _ in range(_depth(self.levels)):
            left = node.divide()
            lists = _split(lists, pos, node.begin, node.size, left.size)
            node.descend(left)
        return lists[0]

    def order_of_balls(self, i: int, lists: Tensor, pos: Tensor) -> Tensor:
        r"""Splits down to a level's balls, within which the order stays."""
        level = self.levels[i]
        node = _Balls(level, self.first(i), self.device)
        most = int(level.balls.max(initial=1))
        for _ in range((most - 1).bit_length()):
            left, middle = node.divide()
            lists = _split(lists, pos, node.begin, node.size, left)
            node.descend(left, middle)
        ball = torch.empty_like(node.low).scatter_(0, lists[0], node.low)
        return torch.sort(ball, stable=True).indices

    def _lay_out(self) -> list[Tensor]:
        node = _Nodes(self.levels, self.device)
        state = _SlotState(self.levels, node)
        for _ in range(_depth(self.levels)):
            left = node.divide()
            is_left = node.place < left.size
            state.descend(node, is_left, left)
            node.descend(left)
            state.settle(node)
        out = []
        for level, start in zip(self.levels, state.start, strict=True):
            if level.num_points == start.numel():
                out.append(start)
                continue
            new = torch.ones_like(start, dtype=torch.bool)
            new[1:] = start[1:] != start[:-1]
            out.append(start[where_true(new, level.num_points)])
        return out


class _Spread:
    r"""Gives every point its cloud's value."""
    def __init__(self, level: LevelCounts, device: torch.device) -> None:
        self.cloud = cloud_of_point(level, device)

    def __call__(self, values: np.ndarray) -> Tensor:
        device = self.cloud.device
        return torch.from_numpy(values).to(device)[self.cloud]


class _Left:
    r"""What goes left at each position's node."""
    def __init__(self, size: Tensor, balls: list[Tensor]) -> None:
        self.size = size
        self.balls = balls


class _Nodes:
    r"""The node at each position: where it begins, its points and balls."""
    def __init__(self, levels: list[LevelCounts],
                 device: torch.device) -> None:
        spread = _Spread(levels[0], device)
        self.begin = spread(levels[0].ptr[:-1])
        self.size = spread(levels[0].points)
        self.balls = [spread(level.balls) for level in levels]
        self.base = [spread(level.ball_ptr[:-1]) for level in levels]
        self.place = torch.arange(self.size.numel(),
                                  device=device) - self.begin

    def divide(self) -> _Left:
        r"""The coarsest level with two balls or more is halved; what lies
        below is shared out in proportion.
        """
        balls: list[Tensor] = []
        whole = torch.ones_like(self.size)
        part = torch.zeros_like(self.size)
        for count in reversed(self.balls):
            halved = torch.where(count >= 2, count // 2, 0)
            part = torch.where(part > 0, count * part // whole, halved)
            whole = count
            balls.insert(0, part)
        size = torch.where(part > 0, self.size * part // whole,
                           self.size // 2)
        return _Left(size, balls)

    def descend(self, left: _Left) -> None:
        is_left = self.place < left.size
        for i, part in enumerate(left.balls):
            split = part > 0
            rest = torch.where(split, self.balls[i] - part, self.balls[i])
            here = torch.where(split, part, self.balls[i])
            self.balls[i] = torch.where(is_left, here, rest)
            self.base[i] = torch.where(is_left, self.base[i],
                                       self.base[i] + part)
        self.begin = torch.where(is_left, self.begin, self.begin + left.size)
        self.place = torch.where(is_left, self.place, self.place - left.size)
        self.size = torch.where(is_left, left.size, self.size - left.size)


class _SlotState:
    r"""The slots that each position's node has at every level."""
    def __init__(self, levels: list[LevelCounts], node: _Nodes) -> None:
        self.levels = levels
        zeros = torch.zeros_like(node.size)
        self.start = [zeros for _ in levels]
        self.width = [zeros for _ in levels]  # 0: not in a ball yet
        self.placed = [zeros.bool() for _ in levels]
        self.settle(node)

    def settle(self, node: _Nodes) -> None:
        r"""Enters balls, and fixes nodes that lie in one point of a level."""
        for i, level in enumerate(self.levels):
            enter = (node.balls[i] == 1) & (self.width[i] == 0)
            self.start[i] = torch.where(enter, node.base[i] * level.ball_size,
                                        self.start[i])
            self.width[i] = torch.where(enter, level.ball_size, self.width[i])
        for i in range(len(self.levels)):
            if i == 0:
                one = node.size == 1
            else:
                stride, width = self.levels[i - 1].stride, self.width[i - 1]
                assert stride is not None
                one = self.placed[i - 1] | ((width > 0) & (width <= stride))
            self.placed[i] = self.placed[i] | one

    def descend(self, node: _Nodes, is_left: Tensor, left: _Left) -> None:
        splits = node.size > 1
        for i in range(len(self.levels)):
            moves = splits & ~self.placed[i]
            half = torch.where(moves, self.width[i] // 2, self.width[i])
            self.start[i] = torch.where(moves & ~is_left,
                                        self.start[i] + half, self.start[i])
            self.width[i] = half


class _Balls:
    r"""The node at each position, as a range of balls of one level."""
    def __init__(self, level: LevelCounts, first: Tensor,
                 device: torch.device) -> None:
        spread = _Spread(level, device)
        self.low = spread(level.ball_ptr[:-1])
        self.high = spread(level.ball_ptr[1:])
        self.begin = spread(level.ptr[:-1])
        self.size = spread(level.points)
        self.first = torch.cat(
            [first, first.new_full((1, ), level.num_points)])
        self.index = torch.arange(self.size.numel(), device=device)

    def divide(self) -> tuple[Tensor, Tensor]:
        middle = self.low + (self.high - self.low) // 2
        left = self.first[middle] - self.first[self.low]
        whole = self.high - self.low < 2
        return torch.where(whole, self.size, left), middle

    def descend(self, left: Tensor, middle: Tensor) -> None:
        is_left = self.index < self.begin + left
        whole = self.high - self.low < 2
        self.low = torch.where(is_left, self.low, middle)
        self.high = torch.where(is_left & ~whole, middle, self.high)
        self.begin = torch.where(is_left, self.begin, self.begin + left)
        self.size = torch.where(is_left, left, self.size - left)


def cloud_of_point(level: LevelCounts, device: torch.device) -> Tensor:
    r"""Returns the cloud of each point of a level."""
    points = torch.from_numpy(level.points).to(device)
    return torch.repeat_interleave(
        torch.arange(len(level.points), device=device), points,
        output_size=level.num_points)


def where_true(mask: Tensor, count: int) -> Tensor:
    r"""Returns where a mask is true; the host, which knows how often that
    is, does not wait for the device to tell it.
    """
    place = torch.where(mask, mask.cumsum(0) - 1, count)
    out = torch.empty(count + 1, dtype=torch.long, device=mask.device)
    numbers = torch.arange(mask.numel(), device=mask.device)
    return out.scatter_(0, place, numbers)[:count]


def _depth(levels: list[LevelCounts]) -> int:
    r"""The number of splits to the deepest point."""
    depth = 0
    above = np.ones_like(levels[0].points)
    for level in reversed(levels):
        depth += _halvings(level.balls, above)
        above = level.balls
    return depth + _halvings(levels[0].points, above)


def _halvings(parts: np.ndarray, whole: np.ndarray) -> int:
    most = -(-parts // np.maximum(whole, 1))
    return max(int(most.max(initial=1)) - 1, 0).bit_length()


def _split(lists: Tensor, pos: Tensor, begin: Tensor, size: Tensor,
           num_left: Tensor) -> Tensor:
    r"""Splits every node at the median of its widest axis.

    Args:
        lists: The points in the order of each axis, shape :math:`(D, N)`.
        pos: Positions, shape :math:`(N, D)`.
        begin: Where each position's node begins, shape :math:`(N)`.
        size: The size of each position's node, shape :math:`(N)`.
        num_left: How many of its points go left, shape :math:`(N)`.
    """
    here = torch.arange(begin.numel(), device=begin.device)
    chosen = lists[0]
    most = torch.full_like(begin, -1, dtype=torch.float64)
    for axis in range(lists.size(0)):
        low = pos[lists[axis][begin], axis].double()
        high = pos[lists[axis][begin + size - 1], axis].double()
        extent = 0.5 * high - 0.5 * low  # never overflows
        wider = extent > most
        chosen = torch.where(wider, lists[axis], chosen)
        most = torch.where(wider, extent, most)
    goes_left = torch.empty_like(begin, dtype=torch.bool)
    goes_left[chosen] = here - begin < num_left
    out = torch.empty_like(lists)
    for axis in range(lists.size(0)):
        left = goes_left[lists[axis]]
        before = left.cumsum(0) - left.long()
        rank = before - before[begin]
        to = torch.where(left, begin + rank,
                         begin + num_left + (here - begin - rank))
        out[axis, to] = lists[axis]
    return out
