r"""Attention in cells of any shape on all paths, against a search of nearest
images that shares no code with them.
"""

import math
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests.ops.attention_cases import check
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.nn import BallAttention
from torch_geometric_erwin.ops.ball_attention import (
    Balls,
    ball_attention,
    chunked,
    cpu,
    reference,
    register,
    triton,
)
from torch_geometric_erwin.ops.distance import distance
from torch_geometric_erwin.ops.erwin_block import BlockWeights, erwin_block
from torch_geometric_erwin.ops.native import isa_level
from torch_geometric_erwin.ops.periodic import make_cell

LEVELS = [level for level in range(3) if isa_level(level) == level]
SIZE = 8


def random_lattice(rng: torch.Generator, dim: int, aspect: float,
                   is_open: list[bool]) -> Tensor:
    r"""Skewed vectors of either handedness, the longest :obj:`aspect` times
    as long as the shortest, zero ones in directions that are not periodic.
    """
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=rng,
                                       dtype=torch.float64))[0]
    length = aspect**torch.rand(dim, 1, generator=rng, dtype=torch.float64)
    skew = torch.rand(dim, dim, generator=rng, dtype=torch.float64).tril(-1)
    box = 0.5 * length * ((torch.eye(dim) + 1.8 * skew - 0.9 * skew.gt(0))
                          @ turn)
    box[torch.tensor(is_open[:dim])] = 0.
    return box


def nearest(difference: Tensor, box: Tensor) -> Tensor:
    r"""The shortest of all images, found one by one, the longest vector first
    and as many of it as leave less than the shortest so far.
    """
    box = box[box.any(1)]
    if len(box) == 0:
        return difference
    box = box[box.norm(dim=1).argsort()]
    axes, upper = torch.linalg.qr(box.T)
    along = difference @ axes
    found = torch.tensor([search(y, upper.T.tolist(), math.inf)[1]
                          for y in along.view(-1, len(box)).tolist()],
                         dtype=box.dtype).view_as(along)
    return difference + (found - along) @ axes.T


def search(y: list[float], lower: list[list[float]],
           most: float) -> tuple[float, list[float]]:
    r"""The least square below :obj:`most` of :obj:`y` minus a whole
    combination of rows, and what it is the square of; infinity if none.
    """
    if not y:
        return 0., []
    least, best, row = math.inf, y, lower[len(y) - 1]
    middle = y[-1] / row[len(y) - 1]
    first = math.floor(middle)
    for way in (range(first, first - 999, -1), range(first + 1, first + 999)):
        for times in way:
            *rest, last = (a - times * b for a, b in
                           zip(y, row, strict=False))
            if last**2 >= most:
                break
            square, others = search(rest, lower, most - last**2)
            if square + last**2 < most:
                least = most = square + last**2
                best = [*others, last]
    return least, best


def by_hand(rows: list[Tensor], pos: Tensor, slope: Tensor, boxes: Tensor,
            power: int) -> Tensor:
    r"""Ball after ball, :obj:`SIZE` points each, in their order."""
    parts = []
    for i, box in enumerate(boxes):
        q, k, v = (x[SIZE * i:SIZE * (i + 1)] for x in rows)
        p = pos[SIZE * i:SIZE * (i + 1)]
        own = p.unsqueeze(1) - p
        with torch.no_grad():  # which image it is has no derivative
            shift = nearest(own, box) - own
        far = (own + shift).square().sum(-1)
        if power == 1:
            apart = ~torch.eye(len(p), dtype=torch.bool)
            far = torch.where(apart, far, 1.).sqrt() * apart
        score = torch.einsum('ihe,jhe->hij', q, k) / q.size(-1)**0.5
        alpha = (score + slope.view(-1, 1, 1) * far).softmax(-1)
        parts.append(torch.einsum('hij,jhe->ihe', alpha, v))
    return torch.cat(parts)


def problem(seed: int, dim: int, aspect: float, is_open: list[bool],
            spread: float) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)

    def numbers(*size: int) -> Tensor:
        return torch.randn(*size, generator=rng, dtype=torch.float64)

    boxes = torch.stack([random_lattice(rng, dim, aspect, is_open)
                         for _ in range(2)])
    rows = list(numbers(3, 2 * SIZE, 2, 4).unbind())
    pos = (spread * numbers(2 * SIZE, dim)).float().double()
    return rows, pos, 0.5 * numbers(2), boxes


def gradients(run, variables: list[Tensor], weight: Tensor) -> list[Tensor]:
    variables = [x.detach().requires_grad_() for x in variables]
    out = run(variables[:3], *variables[3:])
    return [out.detach(), *torch.autograd.grad(out, variables,
                                               weight.to(out.dtype))]


cells = [st.integers(0, 9999), st.integers(1, 4),
         st.sampled_from([1., 3., 100.]),
         st.lists(st.sampled_from([False, False, True]), min_size=4,
                  max_size=4),
         st.sampled_from([0.05, 0.5, 2.]), st.sampled_from([1, 2])]


def compare(path, args: tuple, power: int, dtype: torch.dtype,
            pos_dtype: torch.dtype, tolerance: float) -> None:
    r"""Results and gradients of :obj:`path` with those found by hand."""
    rows, pos, slope, boxes = args
    index = torch.arange(2 * SIZE)
    cell = make_cell(boxes.to(pos_dtype))
    balls = Balls(SIZE, index, index, None, cell)
    bias = 'distance' if power == 1 else 'squared'
    torch.manual_seed(0)
    weight = torch.randn(rows[0].shape, dtype=torch.float64)
    expected = gradients(
        lambda rows, pos, slope: by_hand(rows, pos, slope, boxes, power),
        [*rows, pos, slope], weight)
    found = gradients(
        lambda rows, pos, slope: path(*rows, pos, slope, balls, bias),
        [*(x.to(dtype) for x in rows), pos.to(pos_dtype), slope.to(dtype)],
        weight)
    for a, b in zip(found, expected, strict=True):
        check(a.double(), b, tolerance)


@settings(max_examples=100, deadline=None)
@given(*cells)
def test_formulas(seed, dim, aspect, is_open, spread, power):
    args = problem(seed, dim, aspect, is_open, spread)
    for path in (reference.ball_attention, chunked.ball_attention):
        compare(path, args, power, torch.float64, torch.float64, 1e-8)


@pytest.mark.skipif(not cpu.available(), reason='not built')
@pytest.mark.parametrize('level', LEVELS)
@settings(max_examples=100, deadline=None)
@given(*cells, st.sampled_from([torch.float32, torch.float64]))
def test_cpp(level, seed, dim, aspect, is_open, spread, power, pos_dtype):
    args = problem(seed, dim, aspect, is_open, spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, 'WIDEST', level)
        compare(register.ball_attention, args, power, torch.float32,
                pos_dtype, 2e-4)


@pytest.mark.skipif(torch.cuda.is_available() or not find_spec('triton'),
                    reason='for the interpreter')
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@settings(max_examples=15, deadline=None)
@given(*cells, st.sampled_from([torch.float32, torch.float64]))
def test_triton(seed, dim, aspect, is_open, spread, power, pos_dtype):
    args = problem(seed, min(dim, 3), aspect, is_open, spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(register, '_kernels', lambda *args: triton)
        compare(register.ball_attention, args, power, torch.float32,
                pos_dtype, 2e-4)


@settings(max_examples=25, deadline=None)
@given(*cells)
def test_distances(seed, dim, aspect, is_open, spread, power):
    _, pos, _, boxes = problem(seed, dim, aspect, is_open, spread)
    cell = make_cell(boxes).repeat_interleave(SIZE, 0)[:SIZE]
    a, b = pos[:SIZE], pos[SIZE:]
    expected = nearest(a - b, boxes[0]).norm(dim=1)**power
    torch.testing.assert_close(distance(a, b, cell, power == 2), expected)


@pytest.mark.parametrize('bias', ['distance', 'squared'])
def test_edge_by_edge(bias):
    torch.manual_seed(0)
    box = torch.tensor([[1., 0., 0.], [0.4, 0.9, 0.], [0.3, -0.2, 0.]])
    box[2, 2] = 0.8
    tree = BallTree.build(2 * torch.rand(40, 3), box=box, ball_size=16)
    layer, x = BallAttention(8, 2, bias=bias), torch.randn(40, 8)
    out, _ = layer(x, tree, 1, return_attention_weights=True)
    torch.testing.assert_close(out, layer(x, tree, 1))


def test_a_ball_far_smaller_than_its_cell_looks_at_no_images():
    r"""The result has the bits of one without a cell."""
    rows, pos, slope, boxes = problem(0, 3, 3., [False] * 4, 0.01)
    index = torch.arange(2 * SIZE)
    rows, pos = [x.float() for x in rows], pos.float()
    plain, *others = (
        ball_attention(*rows, pos, slope.float(),
                       Balls(SIZE, index, index, None, cell))
        for cell in (None, make_cell(boxes.float()), torch.ones(2, 3)))
    for out in others:
        assert torch.equal(out, plain)


@pytest.mark.parametrize('bias', ['distance', 'squared'])
@pytest.mark.parametrize('is_open', [False, True])
def test_first_and_second_derivatives(bias, is_open):
    rows, pos, slope, boxes = problem(1, 2, 2., [is_open] + [False] * 3, 0.5)
    index = torch.arange(4)
    balls = Balls(4, index, index, None, make_cell(boxes)[:1])
    variables = [x[:4].requires_grad_() for x in (*rows, pos)]

    def run(q: Tensor, k: Tensor, v: Tensor, pos: Tensor) -> Tensor:
        return ball_attention(q, k, v, pos, slope, balls, bias=bias)

    assert gradcheck(run, variables)
    assert gradgradcheck(run, variables)


@pytest.mark.parametrize('edges', [False, True])
@pytest.mark.parametrize('bias', ['distance', 'squared'])
@pytest.mark.parametrize('within_block', [False, True])
def test_strain(edges, bias, within_block):
    r"""Stress: balls as wide as a skewed cell are strained with it."""
    rows, pos, slope, boxes = problem(2, 2, 2., [False] * 4, 0.5)
    index = torch.arange(2 * SIZE)
    rng = torch.Generator().manual_seed(0)
    shapes = [(8, ), (8, 2), (8, ), (24, 8), (24, ), (8, 8), (8, ), (8, ),
              (12, 8), (12, ), (8, 6), (8, )]
    weights = [torch.randn(s, generator=rng, dtype=torch.float64)
               for s in shapes]

    def energy(strain: Tensor) -> Tensor:
        if edges:  # a strain that keeps right angles
            cell = torch.ones(2, 2, dtype=torch.float64)
            strain = strain.diagonal().diag()
            cell = 0.6 * cell * (1 + strain.diagonal())
        else:
            cell = make_cell(boxes + boxes @ strain)
        moved = pos + pos @ strain
        balls = Balls(SIZE, index, index, None, cell)
        if within_block:
            out = erwin_block(rows[0].flatten(1), moved, moved,
                              BlockWeights(*weights, slope), balls, 2,
                              eps=(1e-5, 1e-5), bias=bias)
        else:
            out = ball_attention(*rows, moved, slope, balls, bias=bias)
        return out.square().sum()

    strain = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(energy, strain, eps=1e-7, atol=1e-5, rtol=1e-4)
    within = torch.func.grad(energy)(strain.detach())
    torch.testing.assert_close(
        within, torch.autograd.grad(energy(strain), strain)[0])


def test_strain_in_single_precision():
    r"""Where kernels would serve if nobody asked for the cell's gradient."""
    rows, pos, slope, boxes = problem(2, 2, 2., [False] * 4, 0.5)
    index, found = torch.arange(2 * SIZE), []
    for dtype in (torch.float32, torch.float64):
        box = boxes.to(dtype).requires_grad_()
        balls = Balls(SIZE, index, index, None, make_cell(box))
        out = ball_attention(*(x.to(dtype) for x in rows), pos.to(dtype),
                             slope.to(dtype), balls)
        found += torch.autograd.grad(out.square().sum(), box)
    assert found[1].abs().max() > 0.1
    check(found[0].double(), found[1], 1e-4)
