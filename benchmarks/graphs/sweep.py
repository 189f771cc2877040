r"""Trains all networks on tasks that need no download, and compares them.

python -m benchmarks.graphs.sweep ring_transfer --help
"""

import csv
import logging
import math
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from rich.console import Console
from rich.progress import track

from benchmarks.graphs.data import (
    Graphs,
    RingTransferData,
    SBMClusteringData,
    TreeNeighborsMatchData,
)
from benchmarks.graphs.learner import Learner
from benchmarks.graphs.nets import (
    GAT,
    GCN,
    GIN,
    GPS,
    ErwinGPS,
    GraphNet,
    Hybrid,
)
from benchmarks.graphs.nets.graph_net import count
from benchmarks.speed.report import Table, command, machine, versions, write
from torch_geometric_erwin.transforms import AddLaplacianPos

NETS: dict[str, Any] = {
    'GCN': GCN, 'GAT': GAT, 'GIN': GIN, 'GPS': GPS,
    'GPS, performer': partial(GPS, 'performer'), 'ErwinGPS': ErwinGPS,
    'GCN/Erwin hybrid': Hybrid,
}
CHECK, SOLVED = 100, 0.999  # steps between validations, and their goal
PACKAGES = ['torch', 'torch-geometric', 'lightning', 'torch-geometric-erwin']


@dataclass(frozen=True)
class Job:
    r"""One network to train."""
    task: str
    net: str
    size: Any
    seed: int
    num_layers: int
    budget: int
    ball_size: int
    lr: float
    batch_size: int
    max_steps: int = -1
    max_epochs: int = -1
    solved: float = math.inf


@dataclass
class Result:
    r"""What came of it."""
    job: Job
    score: float
    train_loss: float
    parameters: int
    seconds: float
    steps: int
    epochs: int


def make_data(job: Job) -> Graphs:
    kwargs: dict[str, Any] = {'positions': AddLaplacianPos(8),
                              'batch_size': job.batch_size, 'seed': job.seed}
    if job.task == 'ring_transfer':
        return RingTransferData(job.size, **kwargs)
    if job.task == 'tree_neighbors_match':
        return TreeNeighborsMatchData(job.size, **kwargs)
    return SBMClusteringData(job.size, **kwargs)


def train(job: Job) -> Result:
    r"""Trains one network on one core, and tests it."""
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    seed_everything(job.seed, verbose=False)
    net: GraphNet = NETS[job.net](
        num_layers=job.num_layers, budget=job.budget,
        ball_size=job.ball_size)
    learner, data = Learner(net, lr=job.lr), make_data(job)
    trainer = Trainer(
        accelerator='cpu', max_steps=job.max_steps, max_epochs=job.max_epochs,
        logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, **until(job.solved))
    start = time.perf_counter()
    trainer.fit(learner, datamodule=data)
    seconds = time.perf_counter() - start
    loss = trainer.callback_metrics['train/loss'].item()
    score, = trainer.test(learner, datamodule=data, verbose=False)
    return Result(job, score['test/score'], loss, count(net), seconds,
                  trainer.global_step, trainer.current_epoch)


def until(solved: float) -> dict[str, Any]:
    r"""Options of a trainer that stops when validation scores say so."""
    if math.isinf(solved):
        return {'limit_val_batches': 0}
    return {'val_check_interval': CHECK, 'check_val_every_n_epoch': None,
            'num_sanity_val_steps': 0, 'callbacks': [EarlyStopping(
                'val/score', mode='max', patience=10**9,
                stopping_threshold=solved)]}


def train_all(jobs: Sequence[Job], processes: int,
              console: Console) -> list[Result]:
    # Data are made first, by one process.
    for job in {(job.task, job.size): job for job in jobs}.values():
        make_data(job).prepare_data()
    context = multiprocessing.get_context('spawn')
    with context.Pool(processes) as pool:
        found: Iterator[Result] = pool.imap(train, jobs)
        return list(track(found, 'Training', len(jobs), console=console))


def accuracy_table(results: Sequence[Result], head: str, title: str,
                   note: str) -> Table:
    r"""Mean and standard deviation over seeds: a row for each size."""
    nets = list(dict.fromkeys(result.job.net for result in results))
    table = Table(title, [head, *nets], note)
    sizes = sorted({result.job.size for result in results})
    for size in sizes:
        scores = [[100 * r.score for r in results if r.job.size == size
                   and r.job.net == net] for net in nets]
        table.rows.append([str(size), *map(spell, scores)])
    same = [[r for r in results if r.job.net == net] for net in nets]
    table.rows.append(['parameters', *(span([r.parameters for r in rows])
                                       for rows in same)])
    table.rows.append(['ms/step', *(
        f'{statistics.median(1e3 * r.seconds / r.steps for r in rows):.0f}'
        for rows in same)])
    return table


def spell(scores: Sequence[float]) -> str:
    text = f'{statistics.mean(scores):.1f}'
    if len(scores) > 1:
        text += f' ± {statistics.stdev(scores):.1f}'
    return text


def span(numbers: Sequence[int]) -> str:
    few, many = min(numbers), max(numbers)
    return f'{few:,}' if few == many else f'{few:,} to {many:,}'


def finish(results: Sequence[Result], tables: Sequence[Table], out: Path,
           name: str) -> None:
    r"""Prints the tables and writes them, beside all results as CSV."""
    facts = [machine(), versions(PACKAGES),
             f'seeds: {sorted({r.job.seed for r in results})}; one core for '
             f'each network']
    for table in tables:
        table.print(Console())
    write(out, name, facts, tables, command('benchmarks.graphs.sweep'))
    with out.with_suffix('.csv').open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['net', 'size', 'seed', 'score', 'train_loss',
                         'parameters', 'seconds', 'steps', 'epochs'])
        writer.writerows([
            r.job.net, r.job.size, r.job.seed, f'{r.score:.4f}',
            f'{r.train_loss:.4f}', r.parameters, f'{r.seconds:.2f}', r.steps,
            r.epochs] for r in results)


def ring_transfer(
    sizes: tuple[int, ...] = (8, 10, 20, 30, 40, 50, 60),
    nets: tuple[str, ...] = tuple(NETS),
    seeds: tuple[int, ...] = (0, 1, 2),
    num_layers: int = 6,
    budget: int = 50_000,
    ball_size: int = 32,
    lr: float = 2e-3,
    batch_size: int = 32,
    max_steps: int = 1500,
    processes: int = 2,
    out: Path = Path('runs/graphs/ring_transfer.md'),
) -> None:
    r"""Rings on which a node has to tell what the opposite one says.

    Args:
        sizes: Numbers of nodes.
        nets: Which networks to train.
        seeds: One network for each.
        num_layers: Number of layers.
        budget: About how many parameters each has.
        ball_size: Number of slots of a ball.
        lr: The highest learning rate.
        batch_size: Number of graphs in a batch.
        max_steps: Number of training steps.
        processes: How many networks to train at a time.
        out: Where to write the table, as markdown.
    """
    jobs = [Job('ring_transfer', net, size, seed, num_layers, budget,
                ball_size, lr, batch_size, max_steps, solved=SOLVED)
            for size in sizes for net in nets for seed in seeds]
    results = train_all(jobs, processes, Console())
    finish(results, [accuracy_table(
        results, 'nodes', 'Ring transfer: accuracy in %',
        f'{num_layers} layers, {max_steps:,} steps of {batch_size} rings or '
        f'until all validation rings are right, balls of {ball_size}. '
        f'The message comes from half as many hops away as there are nodes. '
        f'Chance is 20. Mean ± standard deviation '
        f'over {len(seeds)} seeds.')], out, 'Ring transfer')


def steps_of(numbers: Sequence[int]) -> str:
    return ', '.join(f'{number:,}' for number in numbers)


def tree_neighbors_match(
    depths: tuple[int, ...] = (2, 3, 4, 5, 6, 7),
    nets: tuple[str, ...] = tuple(NETS),
    seeds: tuple[int, ...] = (0, 1, 2),
    budget: int = 50_000,
    ball_size: int = 128,
    lr: float = 2e-3,
    batch_size: int = 32,
    max_steps: tuple[int, ...] = (1500, 1500, 1500, 600, 300, 150),
    processes: int = 2,
    out: Path = Path('runs/graphs/tree_neighbors_match.md'),
) -> None:
    r"""Trees whose root has to find the leaf with as many neighbors, with one
    layer more than the tree is deep.

    Args:
        depths: Depths of the trees.
        nets: Which networks to train.
        seeds: One network for each.
        budget: About how many parameters each has.
        ball_size: Number of slots of a ball.
        lr: The highest learning rate.
        batch_size: Number of graphs in a batch.
        max_steps: Number of training steps, for each depth.
        processes: How many networks to train at a time.
        out: Where to write the table, as markdown.
    """
    jobs = [Job('tree_neighbors_match', net, depth, seed, depth + 1, budget,
                ball_size, lr, batch_size, steps, solved=SOLVED)
            for depth, steps in zip(depths, max_steps, strict=True)
            for net in nets for seed in seeds]
    results = train_all(jobs, processes, Console())
    finish(results, [accuracy_table(
        results, 'depth', 'Tree-NeighborsMatch: accuracy in %',
        f'A layer more than the tree is deep, {steps_of(max_steps)} steps of '
        f'{batch_size} trees or until all validation trees are right, balls '
        f'of {ball_size}. Chance is 100 / 2^depth. Mean ± standard deviation '
        f'over {len(seeds)} seeds.')],
        out, 'Tree-NeighborsMatch')


def sbm(
    names: tuple[str, ...] = ('CLUSTER', 'PATTERN'),
    nets: tuple[str, ...] = tuple(NETS),
    seeds: tuple[int, ...] = (0, 1, 2),
    num_layers: int = 4,
    budget: int = 30_000,
    ball_size: int = 32,
    lr: float = 2e-3,
    batch_size: int = 32,
    max_epochs: int = 8,
    processes: int = 2,
    out: Path = Path('runs/graphs/sbm.md'),
) -> None:
    r"""Nodes of the stochastic block model, told apart.

    Args:
        names: :obj:`CLUSTER`, :obj:`PATTERN` or both.
        nets: Which networks to train.
        seeds: One network for each.
        num_layers: Number of layers.
        budget: About how many parameters each has.
        ball_size: Number of slots of a ball.
        lr: The highest learning rate.
        batch_size: Number of graphs in a batch.
        max_epochs: Number of epochs.
        processes: How many networks to train at a time.
        out: Where to write the table, as markdown.
    """
    jobs = [Job('sbm', net, name, seed, num_layers, budget, ball_size, lr,
                batch_size, max_epochs=max_epochs)
            for name in names for net in nets for seed in seeds]
    results = train_all(jobs, processes, Console())
    table = Table(
        'Block models', ['', 'parameters', *(
            f'{name}, {what}' for name in names
            for what in ('accuracy in %', 's/epoch'))],
        f'{num_layers} layers, {max_epochs} epochs of 1,000 graphs, balls of '
        f'{ball_size}. Accuracy is the mean of those within each class. Mean '
        f'± standard deviation over {len(seeds)} seeds; medians of times, on '
        f'one core, {processes} networks at a time.')
    for net in nets:
        cells, sizes = [], []
        for name in names:
            rows = [r for r in results
                    if (r.job.net, r.job.size) == (net, name)]
            sizes += [r.parameters for r in rows]
            seconds = statistics.median(r.seconds / r.epochs for r in rows)
            cells += [spell([100 * r.score for r in rows]), f'{seconds:.1f}']
        table.rows.append([net, span(sizes), *cells])
    finish(results, [table], out, 'Block models')


if __name__ == '__main__':
    auto_cli([ring_transfer, tree_neighbors_match, sbm], as_positional=False)
