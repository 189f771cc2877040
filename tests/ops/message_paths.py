r"""Who makes messages: tests run all paths, where these are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_geometric_erwin.ops.message_passing import edge_lists
from torch_geometric_erwin.ops.native import isa_level

GPU = torch.cuda.is_available()
DEVICE = 'cuda' if GPU else 'cpu'


def paths(register: Any) -> list[Any]:
    r"""Of an operator, whose kernels a module registers."""
    cpu = register.cpu
    built = pytest.mark.skipif(not cpu.available(), reason='not built')
    found = [pytest.param((cpu, level), id=f'cpu-{level}', marks=[
        built, pytest.mark.skipif(isa_level(level) != level,
                                  reason='needs wider vectors')])
        for level in range(3)]
    return [*found, pytest.param((register.triton, 2), id='triton'),
            pytest.param((register.reference, 2), id='stand-in')]


@contextmanager
def serving(register: Any, module: Any, level: int) -> Iterator[Any]:
    r"""Lets one path serve, and tells on which device."""
    on_gpu = module is register.triton and GPU
    if module is register.triton:
        pytest.importorskip('triton')
    with pytest.MonkeyPatch.context() as patch:
        # Also on GPUs, lest another path take over where the trial fails.
        patch.setattr(register, '_kernels', lambda *args: module)
        if not on_gpu:
            patch.setattr(register.cpu, 'WIDEST', level)
            if module is register.triton:  # lists as on GPUs
                patch.setattr(edge_lists, 'library', lambda: None)
            patch.setattr(register, 'serves', lambda x, *args: (
                x.dtype in register.cpu.STORAGES))
        yield module, DEVICE if on_gpu else 'cpu'


def shorten(trials: Any, patch: pytest.MonkeyPatch) -> None:
    r"""The interpreter makes message after message: trials have few there."""
    if not GPU:
        patch.setattr(trials, 'TARGETS', 4)
        patch.setattr(trials, 'SOURCES', 5)
        patch.setattr(trials, 'EDGES', 4 * trials.DEGREE)


def compile_ahead(module: str, folder: Path) -> list[int]:
    r"""Compiles Triton kernels without a GPU; the interpreter takes more than
    the compiler does. Returns how much shared memory each needs.
    """
    compiler = pytest.importorskip('triton')
    tools = Path(compiler.__file__).parent / 'backends/nvidia/bin'
    if not (tools / 'ptxas').exists():
        pytest.skip('no assembler')
    env = {**os.environ, 'TRITON_INTERPRET': '0',
           'TRITON_CACHE_DIR': str(folder)}
    run = subprocess.run([sys.executable, '-m', f'tests.ops.{module}', '80'],
                         env=env, cwd=Path(__file__).parents[2],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return [int(line.split()[1]) for line in run.stdout.splitlines()]
