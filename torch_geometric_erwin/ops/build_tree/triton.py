r"""The ball tree by Triton kernels (`triton_kernels`) on GPUs.

Follows `reference`, but for how nodes are found and split. Large nodes are
split by three launches per depth; once all are small, a program splits some
of them all the way down. Points and positions are 32-bit numbers.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import reference
from torch_geometric_erwin.ops.build_tree.counts import (
    LevelCounts,
    count_levels,
)
from torch_geometric_erwin.ops.build_tree.layout import (
    Layout,
    Phase,
    ball_phase,
    num_splits,
    to_device,
    tree_phases,
)
from torch_geometric_erwin.ops.build_tree.orientation import (
    Orientation,
    orientations,
)
from torch_geometric_erwin.ops.build_tree.reference import LevelTensors
from torch_geometric_erwin.ops.native import has_triton, works

MOST_POINTS = 2**30  # in 32 bits, with a block more
WALK = 128  # positions of a program that walks, one per thread
BLOCK = 1024  # positions of a program that splits large nodes
SMALL = 512  # points of a small node, half those of a program
NODES = 2**26  # so many are kept at a time, or those of four depths


def serves(pos: Tensor) -> bool:
    r"""Whether the kernels take such positions, can be compiled for them, and
    then do what they should.
    """
    if pos.device.type != 'cuda' or pos.size(0) >= MOST_POINTS:
        return False
    case = pos.device, pos.dtype, pos.size(1)
    return has_triton() and works('ball trees', lambda: trial(*case), *case)


def trial(device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    r"""Whether trees of large and small nodes are what they should be."""
    sizes = np.array([2 * SMALL + 50, 7])
    num = int(sizes.sum())
    pos = torch.arange(num * dim, device=device, dtype=torch.double)
    pos = pos.mul(0.618034).frac().to(dtype).view(num, dim)
    levels = count_levels(sizes, [64, 32], [2], False)
    args = pos, None, None, levels, orientations([0., 45.], [])
    found, expected = build_run(*args), reference.build_run(*args)
    return found is not None and expected is not None and all(
        all(map(torch.equal, (*a, *b, c), (*x, *y, z)))
        for (a, b, c), (x, y, z) in zip(found, expected, strict=True))


def build_run(
    pos: Tensor,
    mass: Tensor | None,
    box: Tensor | None,
    levels: list[LevelCounts],
    ways: list[Orientation],
    principal: bool = False,
) -> list[LevelTensors] | None:
    r"""As :func:`reference.build_run`; splits along principal axes by
    PyTorch's operations.
    """
    assert pos.size(0) < MOST_POINTS
    with torch.cuda.device_of(pos):
        return reference.build_run(pos, mass, box, levels, ways, TritonLayout,
                                   principal)


class TritonLayout(Layout):
    r"""A layout by few launches."""
    def starts(self) -> list[Tensor]:
        num, levels = self.levels[0].num_points, len(self.levels)
        starts = self._empty(levels, num)
        sizes = [level.ball_size for level in self.levels]
        strides = [level.stride or 0 for level in self.levels]
        counts = self.counts
        table = torch.cat([counts.ptr[:1], counts.points[:1], counts.balls,
                           counts.ball_ptr])
        _launch('lay_out', (_blocks(num, WALK), ), {
            'cloud_of': self.cloud(0), 'counts': table.int(),
            'sizes': to_device(np.array(sizes + strides, dtype=np.int32),
                               self.device),
            'scratch': self._empty(5 * levels, num), 'starts': starts,
            'num': num, 'clouds': table.size(1), 'levels': levels,
            # Once more, as nodes are looked at before they are split:
            'steps': num_splits(tree_phases(self.levels)) + 1,
            'BLOCK': WALK}, WALK)
        return list(starts.long())

    def order(self, lists: Tensor, pos: Tensor) -> Tensor:
        counts, levels = self.counts, len(self.levels)
        begin = counts.ptr[:1]
        table = torch.cat([begin, begin + counts.points[:1], counts.balls])
        walk = {'state': table.int().index_select(1, self.cloud(0)),
                'parts': self._empty(levels, lists.size(1)),
                'levels': levels}
        return self._split('tree_nodes', walk, tree_phases(self.levels),
                           lists, pos)

    def gather_balls(self, i: int, lists: Tensor, pos: Tensor) -> Tensor:
        low, first = self.counts.ball_ptr[i], self.first(i)
        table = torch.stack([low, low + self.counts.balls[i]]).int()
        end = first.new_full((1, ), lists.size(1))
        walk = {'state': table.index_select(1, self.cloud(i)),
                'first': torch.cat([first, end]).int()}
        return self._split('ball_nodes', walk, [ball_phase(self.levels[i])],
                           lists, pos)

    def _split(self, walk: str, state: dict[str, Any], phases: list[Phase],
               lists: Tensor, pos: Tensor) -> Tensor:
        r"""Splits down to the smallest parts; returns points in order."""
        num = lists.size(1)
        lists, pos = lists.int(), pos.contiguous()
        goes_left = self._empty(num, dtype=torch.int8)
        at_a_time = max(NODES // max(num, 1), 4)
        depth, deepest = 0, num_splits(phases)
        large = _large_splits(phases, SMALL)
        while depth < deepest:
            end = large if depth < large else deepest
            steps = min(end - depth, at_a_time)
            nodes = self._empty(steps, 3, num)
            _launch(walk, (_blocks(num, WALK), ), {
                **state, 'nodes': nodes, 'num': num, 'steps': steps,
                'BLOCK': WALK}, WALK)
            if depth < large:
                for i in range(steps):
                    lists = _split_large(lists, pos, nodes, i, goes_left)
            else:
                _split_small(lists, pos, nodes, goes_left)
            depth += steps
        return lists[0].long()

    def _empty(self, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)


def _large_splits(phases: list[Phase], small: int) -> int:
    r"""The number of splits until all nodes are small."""
    depth = 0
    for parts, size in phases:
        while parts * size > small and parts > 1:
            parts = -(-parts // 2)
            depth += 1
        if parts * size <= small:
            break
    return depth


def _split_large(lists: Tensor, pos: Tensor, nodes: Tensor, depth: int,
                 goes_left: Tensor) -> Tensor:
    r"""Splits all nodes once; returns new lists."""
    dim, num = lists.shape
    blocks = _blocks(num, BLOCK)
    args = {'lists': lists, 'nodes': nodes, 'depth': depth,
            'goes_left': goes_left, 'num': num, 'BLOCK': BLOCK}
    _launch('mark', (blocks, ), {**args, 'pos': pos, 'dim': dim}, BLOCK // 4)
    sums = lists.new_empty(dim * blocks)
    _launch('add_up', (blocks, dim), {**args, 'sums': sums}, BLOCK // 4)
    sums = sums.cumsum(0, dtype=torch.int32)
    out = torch.empty_like(lists)
    _launch('move', (blocks, dim), {**args, 'sums': sums, 'out': out},
            BLOCK // 4)
    return out


def _split_small(lists: Tensor, pos: Tensor, nodes: Tensor,
                 goes_left: Tensor) -> None:
    r"""Splits all nodes as often as there are :obj:`nodes`, in place."""
    dim, num = lists.shape
    _launch('finish', (_blocks(num, SMALL), ), {
        'lists': lists, 'pos': pos, 'nodes': nodes, 'goes_left': goes_left,
        'num': num, 'dim': dim, 'steps': len(nodes), 'MOST': SMALL},
        SMALL)


def _blocks(num: int, size: int) -> int:
    return -(-num // size)


def _launch(name: str, grid: tuple[int, ...], args: dict[str, Any],
            threads: int) -> None:
    from torch_geometric_erwin.ops.build_tree import triton_kernels
    if grid[0] > 0:
        # Fused multiplications and additions would round otherwise.
        getattr(triton_kernels, name)[grid](
            **args, num_warps=max(threads // 32, 1), enable_fp_fusion=False)
