r"""Ball trees and neighbours: time, memory, kernels."""

from collections.abc import Iterator

import torch

from benchmarks.speed.gpu.context import (
    Context,
    profile_table,
    show_bytes,
    show_time,
)
from benchmarks.speed.report import Table
from torch_geometric_erwin import BallTree, knn_graph

K = 16
AIMS = {10**6: .02}  # seconds of a build


def build(pos: torch.Tensor) -> BallTree:
    return BallTree.build(pos, ball_size=[256] * 4, strides=[2, 2, 2],
                          rotations=(0., 45.))


def run(context: Context) -> Iterator[Table]:
    table = Table(
        'Trees and neighbours', ['points', 'what', 'time', 'peak', 'launches'],
        'Uniform in the unit cube, float32. build: four levels, balls of '
        '256, strides 2, 2, 2, each also at 45°. Aim: 20 ms for a million '
        'points. knn_graph includes a tree of its own.')
    profiles = []
    for n in (2_000, 5_000) if context.tiny else (10**5, 10**6):
        torch.manual_seed(0)
        pos = torch.rand(n, 3).to(context.device)
        for name, fn in {
            'build': lambda p=pos: build(p),
            f'knn_graph, k = {K}': lambda p=pos: knn_graph(p, K),
        }.items():
            with context.guard(f'{name} of {n:,} points'):
                seconds = context.time({name: fn})[name]
                kernels, launches = profile_table(
                    context, f'Kernels of {name}, {n:,} points', fn, 10)
                aim = AIMS.get(n) if name == 'build' else None
                missed = aim is not None and seconds > aim
                table.rows.append([
                    f'{n:,}', name,
                    show_time(seconds) + ' (missed)' * missed,
                    show_bytes(context.peak(fn)), str(launches)])
                profiles.append(kernels)
    yield table
    yield from profiles[-2:]
