r"""The main job: message passing alone, a hybrid, and one that is equivariant
learn the same physics in the same time.

Run it as :obj:`python -m benchmarks.experiments.demo --help`.
"""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import ArgumentParser, auto_cli
from rich.console import Console
from torch import Tensor
from torch_geometric.loader import DataLoader
from torchmetrics.functional import mean_squared_error, r2_score

from benchmarks.experiments import figures
from benchmarks.experiments.data import Clouds
from benchmarks.experiments.regression import Regression
from benchmarks.experiments.runs import CONFIGS, Run, train
from benchmarks.speed.report import Table, command, machine, versions, write
from torch_geometric_erwin.datasets import LinearTheory

NETS = 'mpnn', 'hybrid', 'equivariant'
# What is predicted, its unit, and that of lengths.
UNITS = {'halo_mock': ('velocity', 'km/s', 'Mpc/h'),
         'md': ('force', 'kJ/(mol nm)', 'nm')}
Task = Literal['halo_mock', 'md']
SMOOTHING = (7., 8., 9., 10., 11., 12., 13., 14.)  # Mpc/h


@dataclass
class Result:
    r"""How well somebody predicts the test clouds."""
    name: str
    r2: float
    rmse: float
    parameters: int | None = None
    steps: int | None = None
    seconds: float | None = None  # for each step


def load_data(task: str, options: Sequence[str]) -> Clouds:
    parser = ArgumentParser()
    parser.add_subclass_arguments(Clouds, 'data')
    config = parser.parse_args([f'--data={CONFIGS}/data/{task}.yaml',
                                *options])
    data = parser.instantiate(config).data
    data.prepare_data()
    data.setup()
    return data


def linear_theory(data: Clouds) -> tuple[str, Tensor]:
    r"""Predicts velocities as cosmologists do, with the smoothing that is
    best for the validation clouds.
    """
    y = torch.cat([cloud.y for cloud in data.clouds['val']])

    def error(theory: LinearTheory) -> float:
        pred = torch.cat([theory(cloud) for cloud in data.clouds['val']])
        return mean_squared_error(pred, y).item()

    best = min((LinearTheory(smoothing).fit(data.clouds['train'][:32])
                for smoothing in SMOOTHING), key=error)
    return f'linear theory ({best.smoothing:g} Mpc/h)', torch.cat(
        [best(cloud) for cloud in data.clouds['test']])


def load_model(run: Run) -> Regression:
    return Regression.load_from_checkpoint(run.checkpoint(),
                                           map_location='cpu').eval()


@torch.no_grad()
def predict(model: Regression, data: Clouds) -> Tensor:
    # One cloud at a time: the size of batches does not matter.
    return torch.cat([model(batch) for batch in DataLoader(
        data.clouds['test'], batch_size=1)])


def judge(name: str, pred: Tensor, y: Tensor,
          run: Run | None = None) -> Result:
    result = Result(
        name, r2_score(pred, y, multioutput='variance_weighted').item(),
        mean_squared_error(pred, y, squared=False).item())
    if run is not None:
        result.parameters = run.parameters
        result.steps, result.seconds = run.steps, run.seconds
    return result


def compare(task: str, nets: Sequence[str], data: Clouds, minutes: float,
            seed: int, out: Path, options: Sequence[str],
            console: Console) -> list[Result]:
    r"""Trains, tests and draws for one seed."""
    console.rule(f'{minutes:g} minutes of training, seed {seed}')
    runs = train(task, nets, minutes, seed, out, options, console)
    y = torch.cat([cloud.y for cloud in data.clouds['test']])
    preds = {'zero': torch.zeros_like(y)}
    if task == 'halo_mock':
        name, pred = linear_theory(data)
        preds[name] = pred
    by_name = {run.name: run for run in runs}
    models = {name: load_model(run) for name, run in by_name.items()}
    preds |= {name: predict(model, data) for name, model in models.items()}
    results = [judge(name, pred, y, by_name.get(name))
               for name, pred in preds.items()]
    (out / 'results.json').write_text(
        json.dumps([asdict(result) for result in results], indent=1))
    del preds['zero']
    figures.draw_all(
        out, data.clouds['test'][0], preds, y,
        {name: run.curves() for name, run in by_name.items()},
        models, UNITS[task])
    return results


def make_table(task: str, runs: Sequence[list[Result]],
               minutes: float) -> Table:
    quantity, unit, _ = UNITS[task]
    spread = (f'{len(runs)} seeds, mean ± standard deviation'
              if len(runs) > 1 else 'one seed')
    table = Table(
        f'{quantity.capitalize()}: errors on the test clouds',
        ['', 'R²', f'RMSE, {unit}', 'parameters', 'steps', 's/step'],
        f'{minutes:g} minutes of one core for each network, all at a time; '
        f'{spread}.')
    for same in zip(*runs, strict=True):
        first = same[0]
        row = [first.name, spell([r.r2 for r in same], 3),
               spell([r.rmse for r in same], 1), '', '', '']
        if first.parameters is not None:
            row[3] = f'{first.parameters:,}'
            row[4] = f'{statistics.median(r.steps or 0 for r in same):,.0f}'
            row[5] = f'{statistics.median(r.seconds or 0. for r in same):.3f}'
        table.rows.append(row)
    return table


def spell(values: Sequence[float], digits: int) -> str:
    text = f'{statistics.mean(values):.{digits}f}'
    if max(values) > min(values):
        text += f' ± {statistics.stdev(values):.{digits}f}'
    return text


def demo(
    task: Task = 'halo_mock',
    nets: tuple[str, ...] = NETS,
    minutes: float = 5.,
    seeds: tuple[int, ...] = (0, ),
    out: Path = Path('runs/demo'),
    data: tuple[str, ...] = (),
    report: Path | None = None,
) -> None:
    r"""Trains message passing alone, a hybrid and an equivariant hybrid for
    the same time, tests them, prints a table and draws pictures.

    Args:
        task: Velocities of halos, or forces on atoms.
        nets: Which networks: what follows the task's name in those of
            :obj:`benchmarks/configs`, and options of their own, if any.
        minutes: How long to train each network, in minutes of one core.
        seeds: One run for each.
        out: The folder for pictures and logs; with several seeds, for folders
            of these.
        data: Other options for the data than those of the configuration, such
            as :obj:`num_train=64`.
        report: Where to write the table as well, as markdown.
    """
    console, start = Console(), time.perf_counter()
    with console.status('Preparing the data'):
        options = [f'--data.{option}' for option in data]
        clouds = load_data(task, options)
    runs = []
    for seed in seeds:
        folder = out / f'seed_{seed}' if len(seeds) > 1 else out
        folder.mkdir(parents=True, exist_ok=True)
        runs.append(compare(task, nets, clouds, minutes, seed, folder,
                            options, console))
    table = make_table(task, runs, minutes)
    table.print(console)
    console.print(f'Pictures are in {out}. The whole took '
                  f'{(time.perf_counter() - start) / 60:.1f} minutes.')
    facts = [machine(), versions(['torch', 'torch-geometric', 'lightning',
                                  'torch-geometric-erwin'])]
    for path in filter(None, (out / 'results.md', report)):
        write(path, f'Demo: {task}', facts, (table, ),
              command('benchmarks.experiments.demo'))


if __name__ == '__main__':
    auto_cli(demo, as_positional=False)
