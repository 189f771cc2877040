import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from benchmarks.experiments.cli import ExperimentCLI, main

ROOT = Path(__file__).parents[2]
CONFIG = '''name: tiny
data:
  class_path: tests.benchmarks.tiny.TinyClouds
  init_args: {batch_size: 2}
model:
  net:
    class_path: tests.benchmarks.tiny.TinyNet
trainer:
  max_epochs: 2
  log_every_n_steps: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
'''


@pytest.fixture(autouse=True)
def one_thread():
    r"""Sums over threads are not the same twice."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path: Path) -> str:
    r"""A configuration file."""
    path = tmp_path / 'tiny.yaml'
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def cli(config: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExperimentCLI]:
    r"""Runs a command on the tiny configuration."""
    # Lightning warns when there are arguments of pytest, too.
    monkeypatch.setattr(sys, 'argv', sys.argv[:1])

    def run(command: str, *args: str) -> ExperimentCLI:
        return main([command, '--config', config,
                     f'--trainer.default_root_dir={tmp_path}', *args])

    return run


@pytest.fixture
def program(config: str) -> Callable[..., subprocess.CompletedProcess]:
    r"""Runs a command on the tiny configuration in a process of its own."""
    def run(command: str, *args: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, '-m', 'benchmarks.experiments', command,
             '--config', config, *args], cwd=ROOT, capture_output=True,
            text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})

    return run


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def make(**kwargs) -> Trainer:
        return Trainer(**{
            'default_root_dir': tmp_path, 'accelerator': 'cpu',
            'max_epochs': 1, 'logger': False, 'enable_progress_bar': False,
            'enable_checkpointing': False, 'enable_model_summary': False,
            'log_every_n_steps': 1, **kwargs})

    return make
