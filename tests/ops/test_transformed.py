r"""Attention and blocks within the transforms of `torch.func`."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

from tests.ops.test_lattice_attention import SIZE, problem
from torch_geometric_erwin.ops.ball_attention import (
    Balls,
    ball_attention,
    chunked,
    cpu,
)
from torch_geometric_erwin.ops.erwin_block import BlockWeights, erwin_block
from torch_geometric_erwin.ops.periodic import make_cell

Function = Callable[[Tensor, Tensor], Tensor]
jacobian = torch.autograd.functional.jacobian
DTYPES = [(torch.float32, 1e-4), (torch.float64, 1e-9)]


def attention(dtype: torch.dtype, bias: str | None,
              in_cell: bool) -> tuple[Function, Tensor, Tensor]:
    r"""A function of features and positions, and these."""
    rows, pos, slope, boxes = problem(0, 2, 2., [False] * 4, 0.4)
    _, *rows = (x.to(dtype) for x in rows)
    learned = None if bias is None else slope.to(dtype).requires_grad_()
    index = torch.arange(2 * SIZE)
    balls = Balls(SIZE, index, index, None,
                  make_cell(boxes.to(dtype)) if in_cell else None)

    def run(x: Tensor, pos: Tensor) -> Tensor:
        q = x.view(-1, 2, 4)
        return ball_attention(q, *rows, pos, learned, balls, bias=bias)

    return run, torch.randn(2 * SIZE, 8, dtype=dtype), pos.to(dtype)


def block(dtype: torch.dtype, bias: str | None,
          in_cell: bool) -> tuple[Function, Tensor, Tensor]:
    _, pos, slope, boxes = problem(0, 2, 2., [False] * 4, 0.4)
    shapes = [(8, ), (8, 2), (8, ), (24, 8), (24, ), (8, 8), (8, ), (8, ),
              (12, 8), (12, ), (8, 6), (8, )]
    weights = [torch.randn(shape, dtype=dtype).div(shape[-1]**0.5)
               .requires_grad_() for shape in shapes]
    learned = None if bias is None else slope.to(dtype).requires_grad_()
    index = torch.arange(2 * SIZE)
    balls = Balls(SIZE, index, index, None,
                  make_cell(boxes.to(dtype)) if in_cell else None)

    def run(x: Tensor, pos: Tensor) -> Tensor:
        return erwin_block(x, pos - pos.mean(0), pos,
                           BlockWeights(*weights, learned), balls, 2,
                           eps=(1e-5, 1e-5), bias=bias)

    return run, torch.randn(2 * SIZE, 8, dtype=dtype), pos.to(dtype)


@pytest.fixture(params=[attention, block])
def make(request):
    torch.manual_seed(0)
    return request.param


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * (1 + b.abs().max())


both = pytest.mark.parametrize('dtype, tolerance', DTYPES)
biases = pytest.mark.parametrize('bias', ['distance', 'squared', None])
cells = pytest.mark.parametrize('in_cell', [False, True])


@both
@biases
@cells
def test_batches_of_features_and_positions(make, dtype, tolerance, bias,
                                           in_cell):
    run, x, pos = make(dtype, bias, in_cell)
    many = torch.stack([x, 2 * x, x - 1])
    close(vmap(run, (0, None))(many, pos),
          torch.stack([run(x, pos) for x in many]), tolerance)
    places = torch.stack([pos, 1.1 * pos])
    close(vmap(run, (None, 0))(x, places),
          torch.stack([run(x, pos) for pos in places]), tolerance)


@both
@biases
@cells
def test_jacobians(make, dtype, tolerance, bias, in_cell):
    whole, x, pos = make(dtype, bias, in_cell)

    def run(x: Tensor, pos: Tensor) -> Tensor:
        return whole(x, pos)[5:7]

    expected = jacobian(run, (x, pos))
    for found in (jacrev(run, (0, 1))(x, pos), jacfwd(run, (0, 1))(x, pos),
                  jacobian(run, (x, pos), vectorize=True)):
        for a, b in zip(found, expected, strict=True):
            close(a, b, tolerance)


@both
@biases
@cells
def test_hessians(make, dtype, tolerance, bias, in_cell):
    run, x, pos = make(dtype, bias, in_cell)

    def energy(some: Tensor) -> Tensor:
        return run(x, torch.cat([some, pos[3:]])).square().sum()

    close(hessian(energy)(pos[:3]),
          torch.autograd.functional.hessian(energy, pos[:3]), 10 * tolerance)


@both
@biases
@cells
def test_directions(make, dtype, tolerance, bias, in_cell):
    run, x, pos = make(dtype, bias, in_cell)
    dx, way = torch.randn_like(x), torch.randn_like(pos)
    found = jvp(run, (x, pos), (dx, way))[1]
    with forward_ad.dual_level():
        out = run(forward_ad.make_dual(x, dx), forward_ad.make_dual(pos, way))
        close(forward_ad.unpack_dual(out).tangent, found, tolerance)
    if dtype == torch.float64:
        change = (run(x + 1e-6 * dx, pos + 1e-6 * way)
                  - run(x - 1e-6 * dx, pos - 1e-6 * way))
        close(found, change / 2e-6, 1e-7)


def test_cells_within_transforms():
    rows, pos, slope, boxes = problem(0, 2, 2., [False] * 4, 0.4)
    index = torch.arange(2 * SIZE)
    rows, pos, slope = [x.float() for x in rows], pos.float(), slope.float()

    def run(cell: Tensor) -> Tensor:
        return ball_attention(*rows, pos, slope, Balls(SIZE, index, index,
                                                       None, cell))

    cell = make_cell(boxes.float())
    expected = jacobian(run, cell)
    assert expected.abs().max() > 0.01
    close(jacrev(run)(cell), expected, 1e-4)
    close(jacfwd(run)(cell), expected, 1e-4)
    with forward_ad.dual_level():
        out = run(forward_ad.make_dual(cell, torch.ones_like(cell)))
        close(forward_ad.unpack_dual(out).tangent,
              expected.sum((-1, -2, -3)), 1e-4)


def test_cells_and_positions():
    r"""Nested: the cell is of an outer transform."""
    rows, place, slope, boxes = problem(0, 2, 2., [False] * 4, 0.4)
    index = torch.arange(2 * SIZE)

    def force(cell: Tensor, pos: Tensor, create_graph: bool) -> Tensor:
        def energy(pos: Tensor) -> Tensor:
            balls = Balls(SIZE, index, index, None, cell)
            some = (x.to(pos) for x in (*rows, pos, slope))
            return ball_attention(*some, balls).square().sum()

        if not create_graph:
            return torch.func.grad(energy)(pos)
        return torch.autograd.grad(energy(pos), pos, create_graph=True)[0]

    for dtype, tolerance in DTYPES:
        cell, pos = make_cell(boxes.to(dtype)), place.to(dtype)
        expected = jacobian(partial(force, pos=pos.clone().requires_grad_(),
                                    create_graph=True), cell)
        assert expected.abs().max() > 0.01
        found = jacrev(partial(force, pos=pos, create_graph=False))(cell)
        close(found, expected, 10 * tolerance)


@pytest.mark.skipif(not cpu.available(), reason='not built')
def test_kernels_serve_reverse_mode(monkeypatch):
    r"""Gradients by `torch.func`, too."""
    run, x, pos = attention(torch.float32, 'distance', True)
    calls = []

    def note(name: str) -> None:
        original = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda *args: (
            calls.append(name), original(*args))[1])

    note('forward')
    note('backward')
    torch.func.grad(lambda x: run(x, pos).sum())(x)
    assert 'forward' in calls
    x.requires_grad_()
    run(x, pos).sum().backward()
    assert calls.count('forward') == 2 and 'backward' in calls


def test_chunks_of_many_gradients_at_once(monkeypatch):
    monkeypatch.setitem(chunked.SCORES, 'cpu', 1)
    whole, x, pos = attention(torch.float64, 'distance', True)

    def run(pos: Tensor) -> Tensor:
        return whole(x, pos)[7:9]

    close(jacobian(run, pos, vectorize=True), jacobian(run, pos), 1e-9)
