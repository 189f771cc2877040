r"""Rows of a table that compares us with our peers."""

from collections.abc import Mapping, Sequence
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
    contenders: Mapping[str, Contender | None],
    rounds: Rounds,
    aim: float | None,
    ratios: Sequence[str],
) -> dict[str, float]:
    r"""Times the contenders, the first of them ours, and adds a row: the
    medians, ratios to the named peers, the paired ratio to the first of
    these, the aim for that ratio, and the rounds. A peer that is
    :obj:`None` is left out.
    """
    taken = interleave({key: fn for key, fn in contenders.items()
                        if fn is not None}, rounds)
    first = next(iter(taken.values()))
    medians = {key: median(value) for key, value in taken.items()}

    def ratio(peer: str, aim: float | None = None) -> str:
        return times(speedup(first, taken[peer]), aim) if peer in taken else ''

    main = ratios[0]
    paired = times(paired_speedup(first, taken[main])) if main in taken else ''
    table.rows.append([
        name, *(milliseconds(medians[key]) if key in medians else ''
                for key in contenders),
        ratio(main, aim), *map(ratio, ratios[1:]), paired,
        f'≥ {aim:g}x' if aim else '', str(len(first))])
    return medians
