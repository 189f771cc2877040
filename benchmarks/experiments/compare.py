r"""Networks side by side: each is trained on the same data for the same time
and tested.

Run it as :obj:`python -m benchmarks.experiments.compare --help`.
"""

import json
import os
import shlex
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from jsonargparse import auto_cli
from rich.console import Console

from benchmarks.experiments.demo import load_data, spell
from benchmarks.experiments.runs import Run
from benchmarks.speed.report import Table, command, machine, versions, write


@dataclass
class Comparison:
    r"""What makes a table.

    Args:
        title: What it shows.
        nets: The networks: what follows the task's name in those of
            :obj:`benchmarks/configs`, and options of their own, if any, such
            as :obj:`"hybrid --model.net.init_args.k=8"`; before that, what to
            call it here, if need be: :obj:`"'few near'=hybrid ..."`.
        seeds: One run for each.
        note: What one has to know to read it.
    """
    title: str
    nets: tuple[str, ...]
    seeds: tuple[int, ...] = (0, )
    note: str = ''


def split_name(net: str) -> tuple[str | None, str]:
    r"""Splits what to call a network from what it is."""
    first, *options = shlex.split(net)
    *name, kind = first.split('=')
    return name[0] if name else None, shlex.join([kind, *options])


@dataclass
class Outcome:
    r"""What a run was asked for, and what it reached."""
    asked: list[str | float]
    name: str
    metrics: dict[str, float]
    parameters: int
    steps: int
    seconds: float  # for each step
    memory: int  # in bytes


class Runs:
    r"""Trains networks, a few at a time, unless the folder holds what they
    reached before.
    """
    def __init__(self, task: str, minutes: float, options: Sequence[str],
                 out: Path, console: Console) -> None:
        self.task = task
        self.minutes = minutes
        self.options = list(options)
        self.out = out
        self.console = console
        self.running: list[Run] = []

    def __call__(self, job: tuple[str, int]) -> Outcome:
        net, seed = job
        folder = self.out / f'seed_{seed}'
        folder.mkdir(parents=True, exist_ok=True)
        asked: list[str | float] = [self.task, net, self.minutes, seed,
                                    *self.options]
        run = Run(self.task, net, self.minutes, seed, folder, self.options)
        path = folder / f'{run.folder.name}.json'
        if path.is_file():
            outcome = Outcome(**json.loads(path.read_text()))
            if outcome.asked == asked:
                return outcome
        outcome = self.train(run, asked)
        path.write_text(json.dumps(asdict(outcome), indent=1))
        self.console.print(f'{run.name}, seed {seed}: {outcome.metrics}')
        return outcome

    def train(self, run: Run, asked: list[str | float]) -> Outcome:
        run.start()
        self.running.append(run)
        run.finish()
        return Outcome(asked, run.name, run.test(), run.parameters, run.steps,
                       run.seconds, run.memory)

    def all(self, jobs: Sequence[tuple[str, int]],
            at_a_time: int) -> dict[tuple[str, int], Outcome]:
        pool = ThreadPoolExecutor(at_a_time)
        try:
            return dict(zip(jobs, pool.map(self, jobs), strict=True))
        finally:  # one may have failed, or somebody lost patience
            pool.shutdown(wait=False, cancel_futures=True)
            for run in self.running:
                run.stop()


def make_table(comparison: Comparison, metrics: Sequence[str], minutes: float,
               outcomes: dict[tuple[str, int], Outcome]) -> Table:
    table = Table(comparison.title, [
        '', *metrics, 'parameters', 'steps', 's/step', 'MiB'],
        f'{minutes:g} minutes of one core for each, with one thread; '
        f'{spell_seeds(len(comparison.seeds))}. {comparison.note}'.strip())
    for name, net in map(split_name, comparison.nets):
        runs = [outcomes[net, seed] for seed in comparison.seeds]
        table.rows.append([
            name or runs[0].name,
            *[spell([run.metrics[key] for run in runs], 4)
              for key in metrics],
            f'{runs[0].parameters:,}',
            f'{statistics.median(run.steps for run in runs):,.0f}',
            f'{statistics.median(run.seconds for run in runs):.3f}',
            f'{statistics.median(run.memory for run in runs) / 2**20:,.0f}'])
    return table


def spell_seeds(number: int) -> str:
    if number == 1:
        return 'one seed'
    return f'{number} seeds, mean ± standard deviation'


def compare(
    task: str,
    tables: tuple[Comparison, ...],
    minutes: float = 5.,
    metrics: tuple[str, ...] = ('rel_l2', 'r2'),
    at_a_time: int = 0,
    out: Path = Path('runs/compare'),
    data: tuple[str, ...] = (),
    report: Path | None = None,
) -> None:
    r"""Trains and tests networks and prints tables. A network that is in
    several is trained once, and what :obj:`out` holds from before is not
    trained again.

    Args:
        task: What the names of configurations begin with.
        tables: What to compare.
        minutes: How long to train each network, in minutes of one core.
        metrics: What to show of what is measured on the test clouds.
        at_a_time: How many networks to train at a time.
            (default: one for each core)
        out: The folder for what is trained; its :obj:`task` holds the task's.
        data: Other options for the data than those of the configuration, such
            as :obj:`num_train=64`.
        report: Where to write the tables as well, as markdown.
    """
    console = Console()
    options = [f'--data.{option}' for option in data]
    with console.status('Preparing the data'):
        load_data(task, options)  # once, before several read them
    runs = Runs(task, minutes, options, out / task, console)
    jobs = dict.fromkeys(
        (split_name(net)[1], seed) for table in tables
        for seed in table.seeds for net in table.nets)
    outcomes = runs.all(list(jobs), at_a_time or os.cpu_count() or 1)
    made = [make_table(table, metrics, minutes, outcomes) for table in tables]
    for table in made:
        table.print(console)
    facts = [machine(), versions(['torch', 'torch-geometric', 'lightning',
                                  'torch-geometric-erwin'])]
    for path in filter(None, (out / task / 'results.md', report)):
        write(path, f'Networks side by side: {task}', facts, made,
              command('benchmarks.experiments.compare'))


if __name__ == '__main__':
    auto_cli(compare, as_positional=False)
