r"""Taking times: interleaved rounds, medians, growth."""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression, median
from typing import Any

Contender = Callable[[], Any]

# A turn of one contender: so many seconds of calls, but no more than so many.
TURN = 0.1
MOST_CALLS = 20
LONG = 2.  # seconds from which on one call is a turn


@dataclass(frozen=True)
class Rounds:
    r"""How many rounds to run.

    Args:
        repeats: The most rounds of a row.
        seconds: A row stops after this long, once it has :obj:`at_least`
            rounds.
        at_least: The fewest rounds of a row.
    """
    repeats: int = 15
    seconds: float = 30.
    at_least: int = 3


def turn(fn: Contender) -> float:
    r"""Returns the median seconds of a few calls in a row.

    The call before them is not timed: OpenMP's workers spin for a while
    after a parallel region, and would take cores from whoever comes next.
    Freeing a result is not timed, either. A long call is a turn by itself.
    """
    first = timed(fn)
    if first > LONG:
        return first
    calls = min(max(int(TURN / first), 1), MOST_CALLS)
    return median(timed(fn) for _ in range(calls))


def timed(fn: Contender) -> float:
    start = time.perf_counter()
    out = fn()
    seconds = time.perf_counter() - start
    del out
    return seconds


def interleave(
    contenders: Mapping[str, Contender],
    rounds: Rounds,
    turn: Callable[[Contender], float] = turn,
) -> dict[str, list[float]]:
    r"""Lets the contenders take turns (A B A B ...), so that a slow spell of
    the machine hits all of them; the first round warms up and is dropped.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for fn in contenders.values():
        turn(fn)
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    try:
        for i in range(max(rounds.repeats, rounds.at_least)):
            spent = time.perf_counter() - start
            if i >= rounds.at_least and spent > rounds.seconds:
                break
            for name, fn in contenders.items():
                times[name].append(turn(fn))
    finally:
        gc.enable()
    return times


def speedup(ours: Sequence[float], peer: Sequence[float]) -> float:
    r"""How many times faster we are, by the medians."""
    return median(peer) / median(ours)


def paired_speedup(ours: Sequence[float], peer: Sequence[float]) -> float:
    r"""The median over rounds of how many times faster we are."""
    return median(b / a for a, b in zip(ours, peer, strict=True))


def fit_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    r"""Returns :math:`\beta` of :math:`t \propto n^\beta`, by least squares
    on the logarithms; NaN for fewer than two sizes.
    """
    if len(sizes) < 2:
        return math.nan
    return linear_regression([math.log(n) for n in sizes],
                             [math.log(t) for t in seconds]).slope
