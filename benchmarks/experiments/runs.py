r"""Networks that are trained for the same time, each in a process of its own,
by the command line that anybody can use.
"""

import csv
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn

CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = {'mpnn': 'message passing', 'equivariant': 'equivariant hybrid',
         'erwin': 'Erwin', 'gate_points': 'e3nn', 'visnet': 'ViSNet'}
PACKAGE = 'benchmarks.experiments'
CALLBACKS = {'time_budget.TimeBudget': ('minutes={minutes}', 'clock=cpu'),
             'peak_memory.PeakMemory': ()}


class Run:
    r"""A network of :obj:`benchmarks/configs` that is trained for some time
    of a processor, with one thread. Options of its own may follow its name:
    :obj:`"hybrid --model.net.init_args.k=8"`.
    """
    def __init__(self, task: str, net: str, minutes: float, seed: int,
                 out: Path, options: Sequence[str]) -> None:
        net, *own = shlex.split(net)
        short = [option.split('.')[-1] for option in own]
        self.name = ', '.join([NAMES.get(net, net), *short])
        folder = re.sub(r'[^\w.]+', '_', '-'.join([net, *short])).strip('_')
        self.folder = out / folder
        self.log = out / f'{folder}.log'
        self.minutes = minutes
        self.process: subprocess.Popen | None = None
        self._options = [
            *find_config(task, net),
            f'--seed_everything={seed}', f'--data.seed={seed}',
            f'--trainer.default_root_dir={out}',
            '--trainer.enable_progress_bar=false', '--trainer.devices=1',
            *options, *own]

    def start(self) -> None:
        callbacks = []
        for name, arguments in CALLBACKS.items():
            callbacks.append(f'--trainer.callbacks+={PACKAGE}.{name}')
            callbacks += [f'--trainer.callbacks.{argument}'.format(
                minutes=self.minutes) for argument in arguments]
        self._before = set(self.folder.glob('version_*'))
        self.process = self._call('fit', self.folder, *callbacks)

    def _call(self, what: str, folder: Path,
              *options: str) -> subprocess.Popen:
        with self.log.open('a') as log:
            return subprocess.Popen(
                [sys.executable, '-m', PACKAGE, what, *self._options,
                 f'--name={folder.name}', *options],
                env={**os.environ, 'OMP_NUM_THREADS': '1'},
                stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def version(self) -> Path | None:
        r"""The folder of this run, once it exists."""
        new = set(self.folder.glob('version_*')) - self._before
        return new.pop() if new else None

    def rows(self) -> list[dict[str, str]]:
        r"""What was logged so far."""
        return read_rows(self.version())

    def running(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        self._check(code)
        return code is None

    def _check(self, code: int | None) -> None:
        if code:
            raise RuntimeError(f'{self.name!r} failed: see {self.log}')

    def finish(self) -> None:
        r"""Waits for the end of training and finds out what it left."""
        assert self.process is not None
        self._check(self.process.wait())
        state = torch.load(self.checkpoint('last'), map_location='cpu',
                           weights_only=False)
        left: dict[str, Any] = {
            key.split('{')[0]: value
            for key, value in state['callbacks'].items()}
        self.steps: int = state['global_step']
        self.seconds: float = left['TimeBudget']['seconds'] / self.steps
        self.memory: int = left['PeakMemory']['bytes']
        self.parameters = sum(
            moments['exp_avg'].numel()
            for moments in state['optimizer_states'][0]['state'].values())

    def checkpoint(self, which: str = 'best') -> Path:
        # Where data are few, the last is not the best on validation clouds.
        version = self.version()
        assert version is not None
        return version / 'checkpoints' / f'{which}.ckpt'

    def test(self) -> dict[str, float]:
        r"""Tests the best checkpoint and returns what was measured."""
        folder = self.folder.with_name(f'{self.folder.name}_test')
        before = set(folder.glob('version_*'))
        self._check(self._call('test', folder,
                               f'--ckpt_path={self.checkpoint()}').wait())
        version, = set(folder.glob('version_*')) - before
        row = read_rows(version)[-1]
        return {key.removeprefix('test/'): float(value)
                for key, value in row.items()
                if key.startswith('test/') and value}

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        r"""What was logged, by the minutes of training until then."""
        curves: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows():
            for key in ('train/loss', 'val/r2'):
                if row.get(key):
                    minutes = (int(row['step']) + 1) * self.seconds / 60.
                    curves.setdefault(key, []).append(
                        (minutes, float(row[key])))
        return curves


def find_config(task: str, net: str) -> list[str]:
    r"""A network may have a configuration for a task alone, or be one of
    those that go with any.
    """
    path = CONFIGS / f'{task}_{net}.yaml'
    if path.is_file():
        return [f'--config={path}']
    return [f'--config={CONFIGS}/{task}.yaml',
            f'--model.net={CONFIGS}/nets/{net}.yaml']


def read_rows(folder: Path | None) -> list[dict[str, str]]:
    if folder is None or not (folder / 'metrics.csv').is_file():
        return []
    with (folder / 'metrics.csv').open() as file:
        return list(csv.DictReader(file))


def train(task: str, nets: Sequence[str], minutes: float, seed: int,
          out: Path, options: Sequence[str], console: Console) -> list[Run]:
    r"""Trains all networks at a time, each with one thread, which serves
    small networks best, and for the same time of a processor: fewer
    processors take turns.
    """
    runs = [Run(task, net, minutes, seed, out, options) for net in nets]
    try:
        for run in runs:
            run.start()
        watch(runs, console)
    finally:  # one may have failed, or somebody lost patience
        for run in runs:
            run.stop()
    for run in runs:
        run.finish()
    return runs


def watch(runs: Sequence[Run], console: Console) -> None:
    r"""Shows how training goes until it is over."""
    with Progress('{task.description}', BarColumn(), TimeElapsedColumn(),
                  '{task.fields[news]}', console=console) as progress:
        bars = [progress.add_task(run.name, total=1., news='')
                for run in runs]
        while any([run.running() for run in runs]):
            for bar, run in zip(bars, runs, strict=True):
                progress.update(bar, **latest(run.rows()))
            time.sleep(1.)


def latest(rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    r"""How far training is, and how well it goes."""
    last = {key: value for row in rows for key, value in row.items() if value}
    if 'train/progress' not in last:
        return {}
    news = f"step {last['step']}, loss {float(last['train/loss']):.3f}"
    if 'val/r2' in last:
        news += f", validation R² {float(last['val/r2']):.3f}"
    return {'completed': float(last['train/progress']), 'news': news}
