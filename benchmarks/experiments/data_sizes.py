r"""What networks learn from few data, and from more: each gets the same time
on 16, 64, 256 and 1,024 training clouds.

Run it as :obj:`python -m benchmarks.experiments.data_sizes --help`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.experiments.demo import (
    Task,
    judge,
    load_data,
    load_model,
    predict,
    spell,
)
from benchmarks.experiments.figures import COLORS
from benchmarks.experiments.runs import train
from benchmarks.speed.report import Table, command, machine, versions, write

# For each network, its scores for each number of clouds, one for each seed.
Scores = dict[str, dict[int, list[float]]]


def learn(task: Task, nets: Sequence[str], size: int, minutes: float,
          seed: int, out: Path, options: Sequence[str],
          console: Console) -> dict[str, float]:
    r"""Returns what each network reaches on the test clouds."""
    out.mkdir(parents=True, exist_ok=True)
    options = [*options, f'--data.num_train={size}']
    data = load_data(task, options)
    # Epochs, after which networks are validated, have 256 clouds or more.
    options.append(f'--data.repeats={max(1, 256 // size)}')
    console.rule(f'{size:,} clouds, seed {seed}')
    y = torch.cat([cloud.y for cloud in data.clouds['test']])
    return {run.name: judge(run.name, predict(load_model(run), data), y).r2
            for run in train(task, nets, minutes, seed, out, options, console)}


def make_table(scores: Scores, minutes: float) -> Table:
    sizes = list(next(iter(scores.values())))
    table = Table('R² on the test clouds, by the number of training clouds',
                  ['', *[f'{size:,}' for size in sizes]],
                  f'{minutes:g} minutes of training for each; mean ± standard '
                  f'deviation of seeds, if there are several.')
    for name, by_size in scores.items():
        table.rows.append(
            [name, *[spell(by_size[size], 3) for size in sizes]])
    return table


def draw(scores: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    figure = Figure(figsize=(4.5, 3.4), layout='constrained')
    ax = figure.subplots()
    for color, (name, by_size) in zip(COLORS, scores.items(), strict=False):
        means = [sum(values) / len(values) for values in by_size.values()]
        ax.plot(list(by_size), means, 'o-', color=color, label=name)
    ax.set_xscale('log', base=2)
    ax.set(xlabel='training clouds', ylabel='R², test')
    ax.set_xticks(list(by_size), [f'{size:,}' for size in by_size])
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def data_sizes(
    nets: tuple[str, ...] = ('mpnn', 'hybrid', 'erwin', 'equivariant'),
    sizes: tuple[int, ...] = (16, 64, 256, 1024),
    minutes: float = 3.,
    seeds: tuple[int, ...] = (0, ),
    out: Path = Path('runs/data_sizes'),
    data: tuple[str, ...] = (),
    report: Path | None = None,
) -> None:
    r"""Trains networks on :obj:`HaloMock` for the same time with more and
    more clouds, prints a table and draws a picture.

    Args:
        nets: Which networks: what follows the task's name in those of
            :obj:`benchmarks/configs`.
        sizes: How many training clouds.
        minutes: How long to train each network.
        seeds: One run for each.
        out: The folder for the picture and logs.
        data: Other options for the data than those of the configuration.
        report: Where to write the table as well, as markdown.
    """
    console = Console()
    scores: Scores = {}
    options = [f'--data.{option}' for option in data]
    for size in sizes:
        for seed in seeds:
            found = learn('halo_mock', nets, size, minutes, seed,
                          out / f'clouds_{size}_seed_{seed}', options, console)
            for name, score in found.items():
                scores.setdefault(name, {}).setdefault(size, []).append(score)
    table = make_table(scores, minutes)
    table.print(console)
    draw(scores).savefig(out / 'data_sizes.png', dpi=160,
                         bbox_inches='tight')
    facts = [machine(), versions(['torch', 'torch-geometric', 'lightning',
                                  'torch-geometric-erwin'])]
    for path in filter(None, (out / 'data_sizes.md', report)):
        write(path, 'Few data and more', facts, (table, ),
              command('benchmarks.experiments.data_sizes'))


if __name__ == '__main__':
    auto_cli(data_sizes, as_positional=False)
