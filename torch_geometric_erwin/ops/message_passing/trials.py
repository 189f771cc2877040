r"""A small example, on which kernels on GPUs are tried before their use."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from torch_geometric_erwin.ops.message_passing.edge_lists import EdgeLists

TARGETS, DEGREE = 20, 20
SOURCES, EDGES = TARGETS + 1, TARGETS * DEGREE


def make_edges(device: torch.device) -> tuple[Tensor, EdgeLists]:
    target = torch.arange(TARGETS, device=device).repeat_interleave(DEGREE)
    edge_index = torch.stack([(target * 7 + 3) % SOURCES, target])
    return edge_index, EdgeLists.of(edge_index, SOURCES, TARGETS)


def numbers(device: torch.device, dtype: torch.dtype, *shape: int) -> Tensor:
    r"""Returns numbers between -1 and 1, the same each time."""
    x = torch.arange(1., prod(shape) + 1, dtype=torch.double, device=device)
    return (x * 0.618034).frac().sub(0.5).mul(2).view(shape).to(dtype)


def agree(run: Callable[..., Sequence[Tensor | None]], kernels: Any,
          formula: Any, variables: Sequence[Tensor | None]) -> bool:
    r"""Whether what kernels find is what the formula finds in float64."""
    found = run(*kernels, *variables)
    exact = run(*formula, *(x if x is None else x.double()
                            for x in variables))
    single = all(x is None or x.dtype == torch.float32 for x in variables)
    error = 1e-3 if single else 2e-2
    return all(a is b is None if a is None or b is None else bool(
        ((a - b).abs() <= error * (1 + b.abs().max())).all())
        for a, b in zip(found, exact, strict=True))
