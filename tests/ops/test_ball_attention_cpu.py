r"""The C++ kernel against the formula in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

from tests.ops.attention_cases import BIASES, case, check, compare
from torch_geometric_erwin.ops.ball_attention import (
    Balls,
    ball_attention,
    cpu,
    reference,
)
from torch_geometric_erwin.ops.native import isa_level

pytestmark = pytest.mark.skipif(not cpu.available(), reason='not built')

OPS = torch.ops.torch_geometric_erwin
# Variants that this machine runs, and no other in their place:
LEVELS = [level for level in range(3) if isa_level(level) == level] or [0]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
       st.integers(1, 8), st.sampled_from([1, 3, 8, 16, 24, 32, 40, 64]),
       st.integers(1, 5), st.sampled_from(BIASES), st.integers(1, 4),
       st.sampled_from([0.01, 0.3, 0.9, 1.]),
       st.sampled_from([None, 1., 2., 'lattice']),
       st.sampled_from([torch.float32, torch.float64]),
       st.sampled_from(LEVELS))
def test_equals_the_formula(ball_size, heads, width, dim, bias, num_balls,
                            filled, box, pos_dtype, widest):
    torch.manual_seed(ball_size)
    before, cpu.WIDEST = cpu.WIDEST, widest
    try:
        compare(case(ball_size, heads, width, dim, bias, num_balls=num_balls,
                     filled=filled, box=box, pos_dtype=pos_dtype), bias)
    finally:
        cpu.WIDEST = before


@pytest.mark.parametrize('bias', BIASES)
@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 1e-2),
                                              (torch.float16, 1.5e-3)])
def test_half_precision(bias, dtype, tolerance):
    torch.manual_seed(0)
    compare(case(64, 4, 16, bias=bias, filled=0.7, dtype=dtype), bias,
            tolerance)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_reads_and_rounds_every_half(dtype):
    r"""Alone in its ball, a value passes; of two alike, it is the mean."""
    every = torch.arange(2**16).to(torch.uint16).view(dtype)
    q = torch.zeros_like(every).view(-1, 1, 1)
    pos, index = torch.zeros(2**16, 1), torch.randperm(2**16)
    for size in (1, 2):
        balls = Balls(size, index, index.argsort())
        out = ball_attention(q, q, every.view(-1, 1, 1), pos, None, balls,
                             bias=None)
        mean = every[index].view(-1, size).float().mean(1, keepdim=True)
        mean = mean.expand(-1, size).flatten()[balls.inverse].to(dtype)
        assert torch.equal(out.flatten().nan_to_num(7.), mean.nan_to_num(7.))


@pytest.mark.parametrize('num_balls', [3, 40])
@pytest.mark.parametrize('bias', BIASES)
def test_threads_do_not_matter(bias, num_balls):
    torch.manual_seed(0)
    rows, pos, slope, balls = case(64, 6, 16, bias=bias, filled=0.9,
                                   num_balls=num_balls)
    variables = [*rows, *([] if slope is None else [pos, slope])]
    weight, found = torch.randn_like(rows[0]), []
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        out = ball_attention(*rows, pos, slope, balls, bias=bias)
        found.append([out, *torch.autograd.grad(out, variables, weight)])
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize('bias', BIASES)
@pytest.mark.parametrize('factor', [1e3, -1e3, 1e10])
def test_large_scores(bias, factor):
    torch.manual_seed(0)
    rows, pos, slope, balls = case(32, bias=bias, filled=0.8)
    rows[0] = rows[0] * factor
    slope = None if slope is None else slope * factor
    out = ball_attention(*rows, pos, slope, balls, bias=bias)
    variables = [*rows, *([] if slope is None else [pos, slope])]
    grads = torch.autograd.grad(out, variables, torch.ones_like(out))
    assert all(x.isfinite().all() for x in (out, *grads))
    if abs(factor) == 1e3:
        exact = reference.ball_attention(
            *(x.double() for x in rows), pos.double(),
            None if slope is None else slope.double(), balls, bias)
        check(out, exact, 1e-3)


@pytest.mark.parametrize('which', range(3))
def test_not_a_number_shows(which):
    r"""Where there is one, but not in other balls."""
    torch.manual_seed(0)
    rows, pos, slope, balls = case(32)
    rows = [x.detach().clone() for x in rows]
    point = balls.index[40]
    rows[which][point] = torch.nan
    out = ball_attention(*rows, pos, slope, balls)
    ball = balls.inverse // 32 == 1
    assert out[~ball].isfinite().all()
    hit = out[point] if which == 0 else out[ball]
    assert hit.isnan().all()


def test_any_strides():
    torch.manual_seed(0)
    rows, pos, slope, balls = case(32, 4, 16)
    q, k, v = (x.detach() for x in rows)
    strange = [q.transpose(0, 2).contiguous().transpose(0, 2),
               k[:1].expand_as(k), v[:, :1].expand_as(v)]
    strange = [x.requires_grad_() for x in strange]
    wide = pos.detach().repeat(1, 2)[:, ::2].requires_grad_()
    compare((strange, wide, slope, balls), 'distance')
    out = ball_attention(*strange, wide, slope, balls)
    a, = torch.autograd.grad(out.sum(), strange[0], retain_graph=True)
    b, = torch.autograd.grad(out, strange[0], torch.ones_like(out))
    assert torch.equal(a, b)


def test_no_points():
    q = torch.randn(0, 2, 4, requires_grad=True)
    slope = torch.ones(2, requires_grad=True)
    index = torch.zeros(8, dtype=torch.long)
    for slots in (0, 8):
        balls = Balls(8, index[:slots], index[:0],
                      torch.zeros(slots, dtype=torch.bool))
        out = ball_attention(q, q, q, torch.zeros(0, 3), slope, balls)
        grads = torch.autograd.grad(out.sum(), [q, slope])
        assert out.shape == grads[0].shape == q.shape
        assert grads[1].tolist() == [0., 0.]


@pytest.mark.parametrize('index', [[0, 1, 2, 3, 4, 5, 6, 7],
                                   [0, 1, 2, 3, 4, 9], [0, -1, 1, 2, 3, 4]])
def test_slots_that_do_not_fit(index):
    q, index = torch.zeros(6, 1, 1), torch.tensor(index)
    with pytest.raises(ValueError, match="Expected 'balls' to hold each"):
        ball_attention(q, q, q, torch.zeros(6, 1), None,
                       Balls(2, index, index), bias=None)


@pytest.mark.parametrize('bias', BIASES)
def test_gradients_one_by_one(bias):
    torch.manual_seed(0)
    rows, pos, slope, balls = case(32, bias=bias, filled=0.7)
    rows = [x.detach() for x in rows]
    variables = [*rows, pos.detach(),
                 *([] if slope is None else [slope.detach()])]

    def run(*variables: Tensor) -> Tensor:
        rest = variables if slope is not None else (*variables, None)
        return ball_attention(*rest, balls, bias=bias)

    every = [x.clone().requires_grad_() for x in variables]
    weight = torch.randn_like(rows[0])
    together = torch.autograd.grad(run(*every), every, weight,
                                   allow_unused=True)
    for i, expected in enumerate(together):
        alone = list(variables)
        alone[i] = every[i]
        found, = torch.autograd.grad(run(*alone), every[i], weight,
                                     allow_unused=True)
        assert found is expected is None or torch.equal(found, expected)


@pytest.mark.parametrize('bias', BIASES)
def test_second_derivatives(bias):
    r"""Those of single precision are nearly those of double."""
    def run(dtype: torch.dtype) -> list[Tensor | None]:
        torch.manual_seed(0)
        rows, pos, slope, balls = case(16, 2, 4, bias=bias, filled=0.8)
        variables = [x.detach().to(dtype).requires_grad_()
                     for x in (*rows, pos, slope) if x is not None]
        rest = variables if slope is not None else [*variables, None]
        out = ball_attention(*rest, balls, bias=bias)
        first = torch.autograd.grad(out.square().sum(), variables,
                                    create_graph=True, allow_unused=True)
        total = sum(x.square().sum() for x in first if x is not None)
        return list(torch.autograd.grad(total, variables, allow_unused=True))

    for a, b in zip(run(torch.float32), run(torch.float64), strict=True):
        assert a is b is None or (a - b).abs().max() <= 1e-4 * (
            1 + b.abs().max())


def test_function_transforms():
    torch.manual_seed(0)
    rows, pos, slope, balls = case(16)
    rows = [x.detach() for x in rows]

    def energy(q: Tensor, pos: Tensor) -> Tensor:
        return ball_attention(q, *rows[1:], pos, slope, balls).square().sum()

    found = torch.func.grad(energy, argnums=(0, 1))(rows[0], pos.detach())
    q = rows[0].clone().requires_grad_()
    expected = torch.autograd.grad(energy(q, pos), [q, pos])
    for a, b in zip(found, expected, strict=True):
        check(a, b, 1e-5)


@pytest.mark.parametrize('bias', BIASES)
@pytest.mark.parametrize('filled', [0.7, 1.])
def test_operators(bias, filled):
    torch.manual_seed(0)
    rows, pos, slope, balls = case(16, bias=bias, filled=filled, box=2.)
    rows = [x.detach().requires_grad_() for x in rows]
    rest = balls.mask, balls.box
    args = (*rows, pos, slope, balls.index, balls.inverse, *rest, 16,
            bias or '')
    opcheck(OPS.ball_attention.default, args)
    with torch.no_grad():
        out, lse = OPS.ball_attention(*args)
        args = (torch.randn_like(out), *rows, pos, slope, balls.index, *rest,
                out, lse, 16, bias or '',
                [True, True, False, bias is not None, bias is not None])
        args = tuple(x.detach() if isinstance(x, Tensor) else x for x in args)
    opcheck(OPS.ball_attention_backward.default, args)


def test_compiles_to_one_operator():
    torch.manual_seed(0)
    rows, pos, slope, balls = case(16, filled=0.7)
    rows = [x.detach().requires_grad_() for x in rows]
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        seen.extend(str(node.target) for node in graph.graph.nodes
                    if node.op == 'call_function')
        return graph

    compiled = torch.compile(ball_attention, fullgraph=True, backend=backend)
    weight = torch.randn_like(rows[0])
    variables = [*rows, pos, slope]
    out = compiled(*variables, balls)
    grads = torch.autograd.grad(out, variables, weight)
    eager = ball_attention(*variables, balls)
    assert sum('torch_geometric_erwin' in name for name in seen) == 1
    assert torch.equal(out, eager)
    for a, b in zip(grads, torch.autograd.grad(eager, variables, weight),
                    strict=True):
        assert torch.equal(a, b)
