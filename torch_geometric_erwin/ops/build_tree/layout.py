r"""Splits every node of a depth at once, and lays points out in slots.

See `csrc/tree/layout.h` for the rules, which are the same.
"""

import math
from typing import Any

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
        self.counts = DeviceCounts(levels, device)
        self._clouds: dict[int, Tensor] = {}
        self._slots: list[Tensor] = []
        self._first: dict[int, Tensor] = {}

    def cloud(self, i: int) -> Tensor:
        r"""Returns the cloud of each point of a level."""
        if i not in self._clouds:
            number = torch.arange(self.counts.points.size(1),
                                  device=self.device)
            self._clouds[i] = torch.repeat_interleave(
                number, self.counts.points[i],
                output_size=self.levels[i].num_points)
        return self._clouds[i]

    def slots(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the slot of every point of a level in the order of the
        tree, the mask of real slots, and every slot's point: of a virtual
        slot, the one before it.
        """
        slot = self._slot(i)
        mask = torch.zeros(self.levels[i].num_slots, dtype=torch.bool,
                           device=self.device)
        mask.index_fill_(0, slot, True)
        return slot, mask, mask.cumsum(0) - 1

    def first(self, i: int) -> Tensor:
        r"""Returns the first point of every ball of a level."""
        if i not in self._first:
            level = self.levels[i]
            starts = torch.arange(int(level.balls.sum()),
                                  device=self.device) * level.ball_size
            self._first[i] = torch.searchsorted(self._slot(i), starts)
        return self._first[i]

    def order(self, lists: Tensor, pos: Tensor) -> Tensor:
        r"""Splits down to single points; returns them in order."""
        node = _Nodes(self)
        for _ in range(num_splits(tree_phases(self.levels))):
            left = node.divide()
            lists = _split(lists, pos, node.begin, node.size, left.size)
            node.descend(left)
        return lists[0]

    def order_along(self, axes: Any) -> Tensor:
        r"""Splits along principal axes down to groups of slots that become
        one point of the next level, or else to balls; sorts points there.
        """
        node, level = _Nodes(self), self.levels[0]
        most = level.stride or level.ball_size
        order = node.begin + node.place
        group = [order, torch.ones_like(order)]  # where it begins, its size
        width = torch.where(node.balls[0] == 1, level.ball_size, 0)
        whole = torch.zeros_like(width, dtype=torch.bool)
        for _ in range(num_splits(tree_phases(self.levels))):
            new = ~whole & (width > 0) & (width <= most)
            group = [torch.where(new, a, b) for a, b in
                     zip((node.begin, node.size), group, strict=True)]
            whole, left = whole | new, node.divide()
            order = axes.split(order, node.begin, node.size,
                               torch.where(whole, node.size, left.size))
            node.descend(left)
            width = torch.where(width > 0, width // 2, torch.where(
                node.balls[0] == 1, level.ball_size, 0))
        return axes.sort(order, *group)

    def order_of_balls(self, i: int, lists: Tensor, pos: Tensor) -> Tensor:
        r"""Splits down to a level's balls, within which the order stays."""
        return self._in_balls(i, self.gather_balls(i, lists, pos))

    def order_of_balls_along(self, i: int, axes: Any) -> Tensor:
        r"""As :meth:`order_of_balls`, along principal axes."""
        node = _Balls(self, i)
        order = node.index
        for _ in range(num_splits([ball_phase(self.levels[i])])):
            left, middle = node.divide()
            order = axes.split(order, node.begin, node.size, left)
            node.descend(left, middle)
        return self._in_balls(i, order)

    def _in_balls(self, i: int, order: Tensor) -> Tensor:
        level = self.levels[i]
        ball = self._slot(i) // level.ball_size
        ball = torch.empty_like(ball).scatter_(0, order, ball)
        return stable_argsort(ball, int(level.balls.sum()))

    def gather_balls(self, i: int, lists: Tensor, pos: Tensor) -> Tensor:
        r"""Splits down to a level's balls; returns their points in turn."""
        node = _Balls(self, i)
        for _ in range(num_splits([ball_phase(self.levels[i])])):
            left, middle = node.divide()
            lists = _split(lists, pos, node.begin, node.size, left)
            node.descend(left, middle)
        return lists[0]

    def starts(self) -> list[Tensor]:
        r"""Returns the slot of each point of the first level, and at the
        other levels that of what it becomes part of, in the tree's order.
        """
        node = _Nodes(self)
        state = _SlotState(self.levels, node)
        for _ in range(num_splits(tree_phases(self.levels))):
            left = node.divide()
            is_left = node.place < left.size
            state.descend(node, is_left, left)
            node.descend(left)
            state.settle(node)
        return state.start

    def _slot(self, i: int) -> Tensor:
        if not self._slots:
            self._slots = self._lay_out()
        return self._slots[i]

    def _lay_out(self) -> list[Tensor]:
        out = []
        for level, start in zip(self.levels, self.starts(), strict=True):
            if level.num_points == start.numel():
                out.append(start)
                continue
            new = torch.ones_like(start, dtype=torch.bool)
            new[1:] = start[1:] != start[:-1]
            out.append(start[where_true(new, level.num_points)])
        return out


class DeviceCounts:
    r"""The counts of every cloud at every level on a device, brought there
    at once: `points`, `balls`, and where either begin, shape :math:`(L, B)`.
    """
    def __init__(self, levels: list[LevelCounts],
                 device: torch.device) -> None:
        rows = [[level.points, level.ptr[:-1], level.balls,
                 level.ball_ptr[:-1]] for level in levels]
        table = to_device(np.array(rows, dtype=np.int64), device)
        self.points, self.ptr, self.balls, self.ball_ptr = table.unbind(1)


class _Left:
    r"""What goes left at each position's node."""
    def __init__(self, size: Tensor, balls: list[Tensor]) -> None:
        self.size = size
        self.balls = balls


class _Nodes:
    r"""The node at each position: where it begins, its points and balls."""
    def __init__(self, layout: Layout) -> None:
        counts, cloud = layout.counts, layout.cloud(0)
        self.begin = counts.ptr[0][cloud]
        self.size = counts.points[0][cloud]
        self.balls = [balls[cloud] for balls in counts.balls]
        self.base = [base[cloud] for base in counts.ball_ptr]
        self.place = torch.arange(self.size.numel(),
                                  device=layout.device) - self.begin

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
    def __init__(self, layout: Layout, i: int) -> None:
        counts, cloud = layout.counts, layout.cloud(i)
        self.low = counts.ball_ptr[i][cloud]
        self.high = self.low + counts.balls[i][cloud]
        self.begin = counts.ptr[i][cloud]
        self.size = counts.points[i][cloud]
        first = layout.first(i)
        self.first = torch.cat([first, first.new_full((1, ), cloud.numel())])
        self.index = torch.arange(cloud.numel(), device=layout.device)

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


def where_true(mask: Tensor, count: int) -> Tensor:
    r"""Returns where a mask is true; the host, which knows how often that
    is, does not wait for the device to tell it.
    """
    place = torch.where(mask, mask.cumsum(0) - 1, count)
    out = torch.empty(count + 1, dtype=torch.long, device=mask.device)
    numbers = torch.arange(mask.numel(), device=mask.device)
    return out.scatter_(0, place, numbers)[:count]


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    r"""The host does not wait for what the device was given before."""
    return torch.from_numpy(array).to(device,
                                      non_blocking=device.type == 'cuda')


def stable_argsort(numbers: Tensor, end: int) -> Tensor:
    r"""Sorts whole numbers from 0 up to :obj:`end`. GPUs sort a few bits at
    a time, so narrow types are faster.
    """
    types = (torch.uint8, torch.int16, torch.int32)
    narrow = [t for t in types if end - 1 <= torch.iinfo(t).max]
    return torch.sort(numbers.to(narrow[0]), stable=True).indices


# Parts of a node, at most, and the points of a part, at most.
Phase = tuple[int, int]


def tree_phases(levels: list[LevelCounts]) -> list[Phase]:
    r"""How clouds are split: into balls of the last level, these into balls
    of the level before, ..., and the first level's balls into points.
    """
    phases = []
    above = np.ones_like(levels[0].points)
    for i, level in reversed([*enumerate(levels)]):
        size = level.ball_size * math.prod(
            before.stride or 1 for before in levels[:i])
        phases.append((_most(level.balls, above), size))
        above = level.balls
    return [*phases, (_most(levels[0].points, above), 1)]


def ball_phase(level: LevelCounts) -> Phase:
    r"""How clouds are split into the balls of one level."""
    return _most(level.balls, np.ones_like(level.balls)), level.ball_size


def num_splits(phases: list[Phase]) -> int:
    r"""The number of splits to the deepest part."""
    return sum((parts - 1).bit_length() for parts, _ in phases)


def _most(parts: np.ndarray, whole: np.ndarray) -> int:
    return int((-(-parts // np.maximum(whole, 1))).max(initial=1))


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
