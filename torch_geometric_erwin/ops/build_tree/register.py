r"""The builder as a torch operator, opaque to the compiler."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree import cpu, reference, triton
from torch_geometric_erwin.ops.build_tree.counts import (
    count_levels,
    nested_runs,
)
from torch_geometric_erwin.ops.build_tree.layout import (
    to_device,
    where_true,
)
from torch_geometric_erwin.ops.build_tree.orientation import (
    FARTHEST,
    Orientation,
    in_range,
    orientations,
)
from torch_geometric_erwin.ops.build_tree.principal import line_sense
from torch_geometric_erwin.ops.build_tree.reference import LevelTensors
from torch_geometric_erwin.ops.native import library

Builder = Callable[..., list[LevelTensors] | None]
BUILDERS: dict[str, Builder] = {
    'triton': triton.build_run, 'torch': reference.build_run}

torch.library.define(
    'torch_geometric_erwin::build_tree',
    '(Tensor pos, Tensor ptr, Tensor? box, Tensor? order, int[] ball_sizes, '
    'int[] strides, float[] rotations, float[] matrices, bool perfect, '
    'bool principal, str backend) -> '
    'Tensor[]',
)


def build_tree(
    pos: Tensor,
    ptr: Tensor,
    box: Tensor | None,
    order: Tensor | None,
    ball_sizes: list[int],
    strides: list[int],
    rotations: list[float],
    matrices: list[float],
    perfect: bool,
    principal: bool,
    backend: str,
) -> list[Tensor]:
    r"""Builds every level's `ptr`, `mask`, `group`, and for each orientation
    its `index`, then for each its `inverse`, in one flat list.
    """
    if pos.dtype not in (torch.float32, torch.float64):
        pos = pos.float()
    pos = pos.contiguous()
    if box is not None:
        box = _check_box(box).to(pos.dtype).contiguous()
    if principal and pos.size(1) == 1:
        principal = False
        if box is None:
            pos = pos * line_sense(pos, ptr)
    backend = _choose(backend, pos)
    if backend == 'cpp':
        plan = cpu.plan(tuple(ball_sizes), tuple(strides), tuple(rotations),
                        tuple(matrices), perfect, principal)
        found = cpu.build_tree(pos, ptr.cpu().contiguous(), box, plan)
    else:
        build_run = partial(BUILDERS[backend], principal=principal)
        found = _by_tensors(pos, ptr, box, ball_sizes, strides,
                            orientations(rotations, matrices), perfect,
                            build_run)
    if found is None:
        raise _not_finite(pos)
    return _flatten(*found, order, strides)


def _by_tensors(
    pos: Tensor,
    ptr: Tensor,
    box: Tensor | None,
    ball_sizes: list[int],
    strides: list[int],
    ways: list[Orientation],
    perfect: bool,
    build_run: Builder,
) -> tuple[list[Tensor], list[LevelTensors]] | None:
    r"""As :func:`cpu.build_tree`, by PyTorch's operations or Triton."""
    levels = count_levels(_checked_sizes(pos, ptr), ball_sizes, strides,
                          perfect)
    cpu.check_slots(max(level.num_slots for level in levels))
    starts = [to_device(level.ptr, pos.device) for level in levels]
    mass: Tensor | None = None
    out: list[LevelTensors] = []
    for run in nested_runs(levels):
        tensors = build_run(pos, mass, box, run, ways)
        if tensors is None:
            return None
        out += tensors
        if len(out) == len(levels):
            break
        # On to the points of the next run:
        for i, (index, _, mask) in enumerate(tensors, len(out) - len(run)):
            pos, mass = reference.coarsen(pos, mass, index[0], mask,
                                          strides[i],
                                          levels[i + 1].num_points)
    return starts, out


torch.library.impl('torch_geometric_erwin::build_tree',
                   'CompositeExplicitAutograd', build_tree)


@torch.library.register_fake('torch_geometric_erwin::build_tree')
def _fake_build_tree(
    pos: Tensor,
    ptr: Tensor,
    box: Tensor | None,
    order: Tensor | None,
    ball_sizes: list[int],
    strides: list[int],
    rotations: list[float],
    matrices: list[float],
    perfect: bool,
    principal: bool,
    backend: str,
) -> list[Tensor]:
    ctx = torch.library.get_ctx()
    out: list[Tensor] = []
    for i in range(len(ball_sizes)):
        points = pos.size(0) if i == 0 else ctx.new_dynamic_size()
        slots = ctx.new_dynamic_size()
        out += [
            pos.new_empty(ptr.size(0), dtype=torch.long),
            pos.new_empty(slots, dtype=torch.bool),
            pos.new_empty(0 if i == 0 else points, dtype=torch.long),
        ]
        out += [pos.new_empty(slots, dtype=torch.long) for _ in rotations]
        out += [pos.new_empty(points, dtype=torch.long) for _ in rotations]
    return out


def _choose(backend: str, pos: Tensor) -> str:
    r"""Chooses the builder; all make the same tree."""
    if backend != 'auto':
        return backend
    if pos.device.type == 'cpu' and library() is not None:
        return 'cpp'
    return 'triton' if triton.serves(pos) else 'torch'


def _check_box(box: Tensor) -> Tensor:
    r"""Checks edges, which compiled functions cannot do."""
    if box.device.type == 'cpu' and box.dim() == 2 and not bool(
            ((box > 0) & (box < torch.inf)).all()):
        raise ValueError(f"Expected 'box' to have positive, finite edges "
                         f"(got {box.tolist()})")
    return box


def _checked_sizes(pos: Tensor, ptr: Tensor) -> np.ndarray:
    r"""Fetches the clouds' sizes, and with them whether all positions are
    finite: the only time that the host waits for the device.
    """
    finite = in_range(pos).long().view(1).to(ptr.device)
    host = torch.cat([ptr, finite]).cpu()
    if not host[-1]:
        raise _not_finite(pos)
    return np.diff(host[:-1].numpy())


def _not_finite(pos: Tensor) -> ValueError:
    r"""Says why a builder gave up."""
    if not bool(torch.isfinite(pos).all()):
        return ValueError("Expected 'pos' to have finite coordinates (got "
                          "NaN or infinity)")
    most = pos.abs().max().item()
    return ValueError(f"Expected 'pos' to have coordinates of at most "
                      f"{FARTHEST:g}, also when turned, so that their squares "
                      f"are finite (got up to {most:g})")


def _flatten(
    starts: list[Tensor],
    levels: list[LevelTensors],
    order: Tensor | None,
    strides: list[int],
) -> list[Tensor]:
    out: list[Tensor] = []
    for i, (index, inverse, mask) in enumerate(levels):
        if i == 0 and order is not None:
            index = [order[x] for x in index]
            inverse = [torch.empty_like(x).scatter_(0, order, x)
                       for x in inverse]
        group = starts[i].new_empty(0) if i == 0 else _groups(
            levels[i - 1][2], strides[i - 1], inverse[0].numel())
        out += [starts[i], mask, group, *index, *inverse]
    return out


def _groups(mask: Tensor, stride: int, num_points: int) -> Tensor:
    r"""The group of slots of the level before that each point stands for."""
    if mask.numel() == num_points * stride:
        return torch.arange(num_points, device=mask.device)
    return where_true(mask.view(-1, stride).any(1), num_points)
