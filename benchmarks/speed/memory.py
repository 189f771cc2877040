r"""Peak memory of one build, in a process of its own."""

import sys

import torch

from benchmarks.speed.builders import BUILDERS, clouds
from benchmarks.speed.process import apart, forget_peak, status


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
    return int(apart('benchmarks.speed.memory', threads, builder, num_points,
                     threads))


if __name__ == '__main__':
    torch.set_num_threads(int(sys.argv[3]))
    print(extra_bytes(sys.argv[1], int(sys.argv[2])))
