r"""Peak memory of one call, in a process of its own."""

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.speed.builders import BUILDERS, clouds


def status(key: str) -> int:
    r"""A line of this process' memory status, in bytes (Linux)."""
    lines = Path('/proc/self/status').read_text().splitlines()
    line = next(line for line in lines if line.startswith(key))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    r"""Hands free memory back and resets the peak to what is in use.

    :obj:`ru_maxrss` cannot be reset, and starts at the peak of the process
    that started this one; both would hide a build's own peak.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')


def extra_bytes(builder: str, num_points: int) -> int:
    r"""How far one build raises this process' peak, its result included."""
    build = BUILDERS[builder]
    tiny = clouds(1, 1000)
    build(*tiny[:2])
    pos, batch, _ = clouds(1, num_points)
    forget_peak()
    before = status('VmRSS')
    tree = build(pos, batch)
    extra = status('VmHWM') - before
    del tree
    return extra


def measure(builder: str, num_points: int, threads: int) -> int:
    r"""Returns :meth:`extra_bytes` of a fresh process."""
    args = [sys.executable, '-m', 'benchmarks.speed.memory', builder,
            str(num_points), str(threads)]
    out = subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True,
                         env={**os.environ, 'OMP_NUM_THREADS': str(threads)})
    return int(out.stdout)


if __name__ == '__main__':
    torch.set_num_threads(int(sys.argv[3]))
    print(extra_bytes(sys.argv[1], int(sys.argv[2])))
