r"""Processes of their own, and the memory that they use."""

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path


def status(key: str) -> int:
    r"""A line of this process' memory status, in bytes (Linux)."""
    lines = Path('/proc/self/status').read_text().splitlines()
    line = next(line for line in lines if line.startswith(key))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    r"""Hands free memory back and resets the peak to what is in use.

    :obj:`ru_maxrss` cannot be reset, and starts at the peak of the process
    that started this one; both would hide a call's own peak.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')


def apart(module: str, threads: int, *args: object,
          seconds: float | None = None) -> str:
    r"""Runs a module in a process of its own; returns what it prints, or
    nothing if that takes too many seconds.
    """
    line = [sys.executable, '-m', module, *map(str, args)]
    env = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    try:
        return subprocess.run(line, check=True, stdout=subprocess.PIPE,
                              text=True, env=env, timeout=seconds).stdout
    except subprocess.TimeoutExpired:
        return ''
