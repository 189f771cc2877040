r"""Trains and tests networks on graphs from configuration files."""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console

from benchmarks.experiments.cli import DEFAULTS, ExperimentCLI
from benchmarks.graphs.data import Graphs
from benchmarks.graphs.learner import Learner
from benchmarks.graphs.nets.graph_net import count
from benchmarks.speed.report import Table, machine, versions, write

PACKAGES = ['torch', 'torch-geometric', 'lightning', 'ogb',
            'torch-geometric-erwin']


class GraphCLI(ExperimentCLI):
    r"""As :class:`~benchmarks.experiments.cli.ExperimentCLI`. After training,
    the network of the best epoch is tested.
    """
    monitor = 'val/score'

    def after_fit(self) -> None:
        best = self.trainer.checkpoint_callback
        if isinstance(best, ModelCheckpoint):
            self.trainer.test(self.model, datamodule=self.datamodule,
                              ckpt_path=best.best_model_path,
                              weights_only=True)


def main(args: Sequence[str] | None = None, run: bool = True) -> GraphCLI:
    r"""Runs a command line; :obj:`--seeds 0,1,2` of :obj:`fit` runs it once
    for each, and writes the mean and spread of the score.

    Args:
        args: The arguments. (default: those that Python was called with)
        run: Whether to do what the command says.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--seeds', type=lambda text: list(
        map(int, text.strip('[]').split(','))))
    given = sys.argv[1:] if args is None else list(args)
    found, rest = parser.parse_known_args(given)

    def has(option: str) -> bool:
        return any(arg.split('=')[0] == option for arg in rest)

    if has('--data') and not has('--name'):
        raise ValueError("Expected '--name' to be given with '--data', so "
                         "that runs on other data have another folder (got "
                         "none)")
    if not found.seeds:
        return run_once(rest, run)
    if rest[:1] != ['fit']:
        raise ValueError(f"Expected '--seeds' to follow 'fit' (got {rest})")
    runs = [run_once([*rest, f'--seed_everything={seed}',
                      f'--data.init_args.seed={seed}'])
            for seed in found.seeds]
    summarize(runs, found.seeds, given)
    return runs[-1]


def run_once(args: Sequence[str], run: bool = True) -> GraphCLI:
    return GraphCLI(Learner, Graphs, subclass_mode_data=True,
                    trainer_defaults=dict(DEFAULTS),
                    seed_everything_default=0, args=list(args), run=run,
                    auto_configure_optimizers=False,
                    save_config_kwargs={'overwrite': True})


def summarize(runs: Sequence[GraphCLI], seeds: Sequence[int],
              given: Sequence[str]) -> None:
    r"""Prints the scores, and writes them beside the runs' folders."""
    name, task = runs[0].config.fit.name, runs[0].datamodule.task
    scores = [run.trainer.callback_metrics[f'test/{task.metric}'].item()
              for run in runs]
    table = Table(f'{name}: {task.metric} on the test split',
                  ['seed', task.metric],
                  f'{count(runs[0].model.net):,} parameters.')
    table.rows = [[str(seed), f'{score:.4f}']
                  for seed, score in zip(seeds, scores, strict=True)]
    table.rows.append(['mean ± std', spell(scores)])
    table.print(Console())
    log_dir = runs[0].trainer.loggers[0].log_dir
    assert log_dir is not None
    write(Path(log_dir).parent / 'seeds.md', name,
          [machine(), versions(PACKAGES)], [table],
          ' '.join(['python -m benchmarks.graphs', *given]))


def spell(scores: Sequence[float], digits: int = 4) -> str:
    r"""Mean and standard deviation."""
    text = f'{statistics.mean(scores):.{digits}f}'
    if len(scores) > 1:
        text += f' ± {statistics.stdev(scores):.{digits}f}'
    return text
