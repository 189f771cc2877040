r"""Attention to compare with the formula in double precision."""

import torch
from torch import Tensor

from tests.tree.test_cells import random_box
from torch_geometric_erwin.ops.ball_attention import (
    Balls,
    ball_attention,
    reference,
)
from torch_geometric_erwin.ops.periodic import make_cell

BIASES = ['distance', 'squared', None]
Case = tuple[list[Tensor], Tensor, Tensor | None, Balls]


def case(
    ball_size: int,
    heads: int = 2,
    width: int = 8,
    dim: int = 3,
    bias: str | None = 'distance',
    *,
    num_balls: int = 3,
    filled: float = 1.,
    box: float | str | None = None,
    dtype: torch.dtype = torch.float32,
    pos_dtype: torch.dtype = torch.float32,
    device: str = 'cpu',
) -> Case:
    r"""Views of one tensor of queries, keys and values, points on a grid,
    some on others if there is no lattice, and any of the slots; the first ball
    of several has none if not all are :obj:`filled`.
    """
    slots = ball_size * num_balls
    mask = torch.rand(slots) < filled
    if filled < 1. and num_balls > 1:
        mask[:ball_size] = False
    mask[-1] = True
    n = int(mask.sum())
    points = torch.randperm(n)
    index = torch.zeros(slots, dtype=torch.long)
    index[mask] = points
    inverse = torch.empty(n, dtype=torch.long)
    inverse[points] = mask.nonzero().flatten()
    qkv = torch.randn(n, 3, heads, width).to(device, dtype).requires_grad_()
    pos = torch.randint(-2000, 2000, (n, dim)) / 1024
    slope = torch.randn(heads).to(device).requires_grad_()
    cell = None
    if box == 'lattice':  # some smaller than the balls
        pos = pos + torch.rand(n, dim) / 512  # no ties to break
        lattice = random_box(n, num_balls, dim).to(pos_dtype)
        cell = make_cell(lattice / 4).to(device)
    else:
        pos = pos[torch.randint(n, (n, ))]
    if isinstance(box, float):
        cell = torch.full((num_balls, dim), box, dtype=pos_dtype,
                          device=device)
    balls = Balls(ball_size, index.to(device), inverse.to(device),
                  mask.to(device) if filled < 1. else None, cell)
    return (list(qkv.unbind(1)), pos.to(device, pos_dtype).requires_grad_(),
            None if bias is None else slope, balls)


def compare(case: Case, bias: str | None, tolerance: float = 1e-5) -> None:
    rows, pos, slope, balls = case
    out = ball_attention(*rows, pos, slope, balls, bias=bias)
    double = None if slope is None else slope.double()
    expected = reference.ball_attention(*(x.double() for x in rows),
                                        pos.double(), double, balls, bias)
    assert out.dtype == rows[0].dtype
    check(out, expected, tolerance)
    weight = torch.randn(out.shape).to(out)
    variables = [*rows, *([] if slope is None else [pos, slope])]
    found = torch.autograd.grad(out, variables, weight)
    exact = torch.autograd.grad(expected, variables, weight.double())
    for x, a, b in zip(variables, found, exact, strict=True):
        assert a.dtype == x.dtype
        # A slope's gradient is a sum over all pairs that cancels.
        check(a, b, tolerance * (10 if x is slope else 2))


def check(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert a.shape == b.shape
    if a.numel() > 0:
        assert (a - b).abs().max() <= tolerance * (1 + b.abs().max())
