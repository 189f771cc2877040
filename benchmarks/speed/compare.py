r"""Rows of a table that compares us with our peers."""

from collections.abc import Sequence
from statistics import median

from benchmarks.speed.report import Table, milliseconds, times
from benchmarks.speed.timing import (
    Contender,
    Rounds,
    interleave,
    paired_speedup,
    speedup,
)


def compare(
    table: Table,
    name: str,
    contenders: dict[str, Contender],
    rounds: Rounds,
    aim: float | None,
    ratios: Sequence[str],
) -> dict[str, float]:
    r"""Times the contenders, the first of them ours, and adds a row: the
    medians, ratios to the named peers, the paired ratio to the first of
    these, the aim for that ratio, and the rounds.
    """
    taken = interleave(contenders, rounds)
    first = next(iter(taken.values()))
    ratio = [speedup(first, taken[peer]) for peer in ratios]
    cells = [times(ratio[0], aim), *map(times, ratio[1:]),
             times(paired_speedup(first, taken[ratios[0]])),
             f'≥ {aim:g}x' if aim else '', str(len(first))]
    medians = {key: median(value) for key, value in taken.items()}
    table.rows.append([name, *map(milliseconds, medians.values()), *cells])
    return medians
