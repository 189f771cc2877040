r"""How many points and balls a cloud has at every level.

All of it follows from the clouds' sizes; coordinates play no part. See also
`csrc/tree/counts.cpp`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MAX_LEVELS = 16  # as in `csrc/tree/layout.h`

@dataclass(frozen=True, eq=False)
class LevelCounts:
    r"""One level of a batch of :math:`B` clouds.

    Args:
        points: The number of points of each cloud, shape :math:`(B)`.
        balls: The number of balls of each cloud, shape :math:`(B)`.
        ball_size: The number of slots of a ball.
        stride: How many slots make a point of the next level;
            :obj:`None` at the last level.
        nested: Whether the balls are unions of the balls one level below.
            If not, a new tree is built on this level's points.
    """
    points: np.ndarray
    balls: np.ndarray
    ball_size: int
    stride: int | None
    nested: bool

    @cached_property
    def num_points(self) -> int:
        return int(self.points.sum())

    @cached_property
    def num_slots(self) -> int:
        return int(self.balls.sum()) * self.ball_size

    @cached_property
    def ptr(self) -> np.ndarray:
        return _offsets(self.points)

    @cached_property
    def ball_ptr(self) -> np.ndarray:
        return _offsets(self.balls)


def _offsets(sizes: np.ndarray) -> np.ndarray:
    out = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=out[1:])
    return out


def count_levels(
    sizes: np.ndarray,
    ball_sizes: list[int],
    strides: list[int],
    perfect: bool,
) -> list[LevelCounts]:
    r"""Counts the points and balls of every level.

    A level's points are the groups of ``stride`` slots of the level before
    that hold at least one point, and its balls are as few as can hold them.
    Balls of a coarser level are unions of balls of the finer one, unless
    they are too small for that or nothing is pooled between the levels.
    """
    levels: list[LevelCounts] = []
    points = np.asarray(sizes, dtype=np.int64)
    for i, ball_size in enumerate(ball_sizes):
        stride = strides[i] if i < len(strides) else None
        nested = is_nested(i, ball_sizes, strides)
        if i > 0:
            last = levels[-1]
            groups = last.balls * last.ball_size // strides[i - 1]
            points = np.minimum(points, groups)
        balls = _num_balls(points, ball_size, perfect)
        if perfect and nested:
            share = ball_size * strides[i - 1] // ball_sizes[i - 1]
            balls = np.maximum(levels[-1].balls // share, points > 0)
        levels.append(LevelCounts(points, balls, ball_size, stride, nested))
    return levels


def is_nested(i: int, ball_sizes: list[int], strides: list[int]) -> bool:
    r"""Whether balls of level :obj:`i` are unions of the level's before."""
    return i > 0 and strides[i - 1] > 1 and (
        ball_sizes[i] * strides[i - 1] >= ball_sizes[i - 1])


def _num_balls(
    points: np.ndarray,
    ball_size: int,
    perfect: bool,
) -> np.ndarray:
    if not perfect:
        return -(-points // ball_size)
    slots = np.array([1 << max(int(n) - 1, 0).bit_length() for n in points],
                     dtype=np.int64)
    balls = np.maximum(slots // ball_size, 1)
    return np.minimum(balls, points)  # a ball holds at least one point


def nested_runs(levels: list[LevelCounts]) -> list[list[LevelCounts]]:
    r"""Groups the levels that share a tree."""
    runs: list[list[LevelCounts]] = []
    for level in levels:
        if level.nested:
            runs[-1].append(level)
        else:
            runs.append([level])
    return runs
