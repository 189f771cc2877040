r"""The C++ builder (`csrc/tree/`)."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.counts import MAX_LEVELS, is_nested
from torch_geometric_erwin.ops.build_tree.orientation import orientations
from torch_geometric_erwin.ops.build_tree.reference import (
    LevelTensors,
    coarsen,
)
from torch_geometric_erwin.ops.native import library, pointer

LONG = ctypes.sizeof(ctypes.c_int64)


class _Counts(ctypes.Structure):
    _fields_ = [
        ('num_levels', ctypes.c_int32),
        ('is_perfect', ctypes.c_int32),
        ('num_clouds', ctypes.c_int64),
        ('ptr', ctypes.c_void_p),
        ('ball_sizes', ctypes.c_void_p),
        ('strides', ctypes.c_void_p),
        ('point_ptr', ctypes.c_void_p),
        ('ball_ptr', ctypes.c_void_p),
        ('totals', ctypes.c_void_p),
    ]


class _Tree(ctypes.Structure):
    _fields_ = [
        ('scalar_size', ctypes.c_int32),
        ('dim', ctypes.c_int32),
        ('num_levels', ctypes.c_int32),
        ('num_orientations', ctypes.c_int32),
        ('num_threads', ctypes.c_int32),
        ('box_rows', ctypes.c_int32),
        ('is_principal', ctypes.c_int32),
        ('num_clouds', ctypes.c_int64),
        ('pos', ctypes.c_void_p),
        ('mass', ctypes.c_void_p),
        ('box', ctypes.c_void_p),
        ('ball_sizes', ctypes.c_void_p),
        ('strides', ctypes.c_void_p),
        ('orientations', ctypes.c_void_p),
        ('matrices', ctypes.c_void_p),
        ('point_ptr', ctypes.c_void_p),
        ('ball_ptr', ctypes.c_void_p),
        ('index', ctypes.c_void_p),
        ('inverse', ctypes.c_void_p),
        ('mask', ctypes.c_void_p),
    ]


class Plan:
    r"""What does not depend on the clouds; made once for all that are built
    in the same way, as a small tree takes no longer than this.

    Args:
        ball_sizes: The slots of a ball, one number per level.
        strides: The slots that make a point of the next level.
        rotations: The angle of each orientation, in degrees.
        matrices: Their matrices, as of :func:`orientations`.
        perfect: Whether the trees are the paper's.
        principal: Whether nodes are split along their principal axes.
    """
    def __init__(self, ball_sizes: Sequence[int], strides: Sequence[int],
                 rotations: Sequence[float], matrices: Sequence[float],
                 perfect: bool, principal: bool) -> None:
        ways = orientations(list(rotations), list(matrices))
        self.sizes, self.strides = list(ball_sizes), list(strides)
        self.perfect, self.principal = perfect, principal
        self.num_ways = len(ways)
        turns = [way.matrix for way in ways if way.matrix is not None]
        self._memory = [
            np.array(ball_sizes, np.int64),
            np.array([*strides, 0], np.int64),
            np.array([[w.cosine, w.sine, w.shift, w.slide] for w in ways]),
            np.array(turns),
        ]
        self.sizes_at, self.strides_at, self.ways_at, turns_at = [
            array.ctypes.data for array in self._memory]
        self.turns_at = turns_at if turns else None
        # Levels share a tree up to one that is not nested.
        starts = [i for i in range(len(ball_sizes))
                  if not is_nested(i, self.sizes, self.strides)]
        self.runs = [*zip(starts, [*starts[1:], len(ball_sizes)],
                          strict=True)]

    def count(self, ptr: Tensor) -> tuple[list[Tensor], Tensor, list[int]]:
        r"""Returns where the points of each cloud begin at each level, where
        the balls do, and the numbers of points and balls of each level.
        """
        levels, clouds = len(self.sizes), ptr.numel() - 1
        points = [torch.empty(clouds + 1, dtype=torch.long)
                  for _ in self.sizes]
        balls = torch.empty(levels, clouds + 1, dtype=torch.long)
        totals, rows = (ctypes.c_int64 * (2 * levels))(), _addresses(points)
        args = _Counts(levels, self.perfect, clouds, ptr.data_ptr(),
                       self.sizes_at, self.strides_at, ctypes.addressof(rows),
                       balls.data_ptr(), ctypes.addressof(totals))
        lib = library()
        assert lib is not None
        lib.tge_count_levels(ctypes.byref(args))
        return points, balls, list(totals)


plan = lru_cache(maxsize=64)(Plan)


def build_tree(
    pos: Tensor,
    ptr: Tensor,
    box: Tensor | None,
    plan: Plan,
) -> tuple[list[Tensor], list[LevelTensors]] | None:
    r"""Returns where the clouds' points begin, and the tensors of each level;
    :obj:`None` where a coordinate is not finite or too large, maybe when
    turned.
    """
    starts, balls, totals = plan.count(ptr)
    points = totals[::2]
    slots = [n * size for n, size in zip(totals[1::2], plan.sizes,
                                         strict=True)]
    check_slots(max(slots))
    out: list[LevelTensors] = [(
        [torch.empty(n, dtype=torch.long) for _ in range(plan.num_ways)],
        [torch.empty(m, dtype=torch.long) for _ in range(plan.num_ways)],
        torch.empty(n, dtype=torch.bool),
    ) for n, m in zip(slots, points, strict=True)]
    mass: Tensor | None = None
    for first, last in plan.runs:
        if not _build_run(pos, mass, box, plan, starts[first:last],
                          balls[first:last], out[first:last], first):
            return None
        if last == len(points):
            break
        # On to the points of the next run:
        for i in range(first, last):
            index, _, mask = out[i]
            pos, mass = coarsen(pos, mass, index[0], mask, plan.strides[i],
                                points[i + 1])
    return starts, out


def _build_run(pos: Tensor, mass: Tensor | None, box: Tensor | None,
               plan: Plan, starts: list[Tensor], balls: Tensor,
               out: list[LevelTensors], first: int) -> bool:
    lib, levels = library(), len(out)
    assert lib is not None
    at = LONG * first
    arrays = [
        _addresses(starts),
        _addresses([t for level in out for t in level[0]]),
        _addresses([t for level in out for t in level[1]]),
        _addresses([level[2] for level in out]),
    ]
    rows, index, inverse, mask = map(ctypes.addressof, arrays)
    args = _Tree(
        pos.element_size(), pos.size(1), levels, plan.num_ways,
        torch.get_num_threads(),
        box.size(1) if box is not None and box.dim() == 3 else 1,
        plan.principal, balls.size(1) - 1, pointer(pos), pointer(mass),
        pointer(box), plan.sizes_at + at, plan.strides_at + at, plan.ways_at,
        plan.turns_at,
        rows, balls.data_ptr(), index, inverse, mask)
    status = lib.tge_build_tree(ctypes.byref(args))
    if status == 2:
        raise MemoryError(f"Not enough memory for a ball tree of "
                          f"{pos.size(0)} points")
    if status == 3:
        raise ValueError(f"Expected 'strides' to make at most {MAX_LEVELS} "
                         f"levels (got {levels})")
    return status == 0


def check_slots(slots: int) -> None:
    if slots >= 2**31:
        raise ValueError(f"Expected 'pos' to need fewer than 2**31 slots "
                         f"(got {slots})")


def _addresses(tensors: list[Tensor]) -> ctypes.Array:
    array = (ctypes.c_void_p * len(tensors))
    return array(*[tensor.data_ptr() for tensor in tensors])
