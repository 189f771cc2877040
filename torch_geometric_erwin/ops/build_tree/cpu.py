r"""The C++ builder (`csrc/tree/tree.cpp`)."""

import ctypes

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.counts import (
    MAX_LEVELS,
    LevelCounts,
)
from torch_geometric_erwin.ops.build_tree.orientation import Orientation
from torch_geometric_erwin.ops.build_tree.reference import LevelTensors
from torch_geometric_erwin.ops.native import library, pointer


class _Tree(ctypes.Structure):
    _fields_ = [
        ('scalar_size', ctypes.c_int32),
        ('dim', ctypes.c_int32),
        ('num_levels', ctypes.c_int32),
        ('num_orientations', ctypes.c_int32),
        ('num_threads', ctypes.c_int32),
        ('box_rows', ctypes.c_int32),
        ('num_clouds', ctypes.c_int64),
        ('pos', ctypes.c_void_p),
        ('mass', ctypes.c_void_p),
        ('box', ctypes.c_void_p),
        ('point_ptr', ctypes.c_void_p),
        ('ball_ptr', ctypes.c_void_p),
        ('ball_sizes', ctypes.c_void_p),
        ('strides', ctypes.c_void_p),
        ('orientations', ctypes.c_void_p),
        ('matrices', ctypes.c_void_p),
        ('index', ctypes.c_void_p),
        ('inverse', ctypes.c_void_p),
        ('mask', ctypes.c_void_p),
    ]


def build_run(
    pos: Tensor,
    mass: Tensor | None,
    box: Tensor | None,
    levels: list[LevelCounts],
    ways: list[Orientation],
) -> list[LevelTensors] | None:
    r"""As :func:`reference.build_run`, on the CPU."""
    lib = library()
    assert lib is not None
    pos = pos.contiguous()
    mass = None if mass is None else mass.contiguous()
    out: list[LevelTensors] = []
    for level in levels:
        slots, points = level.num_slots, level.num_points
        out.append((
            [torch.empty(slots, dtype=torch.long) for _ in ways],
            [torch.empty(points, dtype=torch.long) for _ in ways],
            torch.empty(slots, dtype=torch.bool),
        ))
    arrays = [
        np.stack([level.ptr for level in levels]),
        np.stack([level.ball_ptr for level in levels]),
        np.array([level.ball_size for level in levels], dtype=np.int64),
        np.array([level.stride or 0 for level in levels], dtype=np.int64),
        np.array([[w.cosine, w.sine, w.shift, w.slide] for w in ways],
                 dtype=np.float64),
    ]
    matrices = [way.matrix for way in ways if way.matrix is not None]
    turns = np.stack(matrices) if matrices else None
    outputs = [
        _addresses([t for level in out for t in level[0]]),
        _addresses([t for level in out for t in level[1]]),
        _addresses([level[2] for level in out]),
    ]
    args = _Tree(
        pos.element_size(), pos.size(1), len(levels), len(ways),
        torch.get_num_threads(),
        box.size(1) if box is not None and box.dim() == 3 else 1,
        len(levels[0].points), pointer(pos),
        pointer(mass), pointer(box),
        *(array.ctypes.data for array in arrays),
        None if turns is None else turns.ctypes.data,
        *(ctypes.addressof(array) for array in outputs))
    status = lib.tge_build_tree(ctypes.byref(args))
    if status == 2:
        raise MemoryError(f"Not enough memory for a ball tree of "
                          f"{pos.size(0)} points")
    if status == 3:
        raise ValueError(f"Expected 'strides' to make at most {MAX_LEVELS} "
                         f"levels (got {len(levels)})")
    return None if status == 1 else out


def _addresses(tensors: list[Tensor]) -> ctypes.Array:
    array = (ctypes.c_void_p * len(tensors))
    return array(*[tensor.data_ptr() for tensor in tensors])
