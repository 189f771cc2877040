r"""Algorithm 1, written down once more as the recursion that it is."""

import numpy as np


def build(pos: np.ndarray, ball_size: int,
          perfect: bool = False) -> tuple[list[int], list[bool]]:
    r"""Returns the point in every slot, and whether the slot is real."""
    n = len(pos)
    balls = -(-n // ball_size)
    if perfect and n > 0:
        balls = min(max(2**int(np.ceil(np.log2(n))) // ball_size, 1), n)
    index: list[int] = []
    mask: list[bool] = []
    if n > 0:
        _balls(pos, list(range(n)), balls, ball_size, index, mask)
    return index, mask


def _balls(pos, points, balls, ball_size, index, mask):  # type: ignore
    if balls == 1:
        return _slots(pos, points, ball_size, index, mask)
    part = balls // 2
    left, right = _split(pos, points, len(points) * part // balls)
    _balls(pos, left, part, ball_size, index, mask)
    return _balls(pos, right, balls - part, ball_size, index, mask)


def _slots(pos, points, slots, index, mask):  # type: ignore
    if len(points) == 1:
        index += points * slots
        mask += [True] + [False] * (slots - 1)
        return
    left, right = _split(pos, points, len(points) // 2)
    _slots(pos, left, slots // 2, index, mask)
    _slots(pos, right, slots // 2, index, mask)


def _split(pos, points, count):  # type: ignore
    part = pos[points]
    # Halved in double, so that no extent overflows:
    extent = 0.5 * part.max(0).astype(float) - 0.5 * part.min(0).astype(float)
    axis = int(np.argmax(extent))
    order = sorted(points, key=lambda i: (pos[i, axis], *pos[i], i))
    return order[:count], order[count:]
