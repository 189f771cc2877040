r"""The Triton kernels against the formula in double precision: on a GPU where
there is one, and otherwise in Triton's interpreter.
"""

import os
import subprocess
import sys
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

from tests.ops.attention_cases import BIASES, case, check, compare
from torch_geometric_erwin.ops import native
from torch_geometric_erwin.ops.ball_attention import (
    Balls,
    ball_attention,
    chunked,
    cpu,
    reference,
    register,
    triton,
)
from torch_geometric_erwin.ops.ball_attention.triton import Tiles

compiler = pytest.importorskip('triton')
pytestmark = pytest.mark.filterwarnings('ignore::RuntimeWarning')

GPU = torch.cuda.is_available()
DEVICE = 'cuda' if GPU else 'cpu'
OPS = torch.ops.torch_geometric_erwin
ASSEMBLER = Path(compiler.__file__).parent / 'backends/nvidia/bin/ptxas'
HALVES = [(torch.float16, 2e-3), pytest.param(
    torch.bfloat16, 1.5e-2, marks=pytest.mark.skipif(
        not GPU, reason="the interpreter's bfloat16 products are wrong"))]


@pytest.fixture(autouse=True, scope='module')
def _served():
    with pytest.MonkeyPatch.context() as patch:
        if not GPU:
            patch.setattr(cpu, 'serves', lambda *args: False)
            patch.setattr(triton, 'serves', lambda *args: True)
            patch.setattr(register, '_kernels', lambda *args: triton)
        yield


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.integers(1, 2),
       st.sampled_from([1, 3, 8, 16, 24, 32, 40]), st.integers(1, 5),
       st.sampled_from(BIASES), st.integers(1, 4),
       st.sampled_from([0.01, 0.3, 0.9, 1.]),
       st.sampled_from([None, 1., 2., 'lattice']),
       st.sampled_from([torch.float32, torch.float64]))
def test_equals_the_formula(ball_size, heads, width, dim, bias, num_balls,
                            filled, box, pos_dtype):
    torch.manual_seed(ball_size)
    compare(case(ball_size, heads, width, dim, bias, num_balls=num_balls,
                 filled=filled, box=box, pos_dtype=pos_dtype, device=DEVICE),
            bias)


@pytest.mark.parametrize('bias, ball_size, width, filled, box', [
    ('distance', 128, 64, 1., None), ('squared', 256, 100, 0.4, 2.),
    ('distance', 512, 32, 0.6, None), (None, 256, 128, 0.7, None),
    ('distance', 32, 200, 0.8, None)])
def test_large(bias, ball_size, width, filled, box):
    torch.manual_seed(0)
    compare(case(ball_size, 1, width, bias=bias, num_balls=2, filled=filled,
                 box=box, device=DEVICE), bias)


@pytest.mark.parametrize('bias', BIASES)
@pytest.mark.parametrize('dtype, tolerance', HALVES)
def test_half_precision(bias, dtype, tolerance):
    torch.manual_seed(0)
    compare(case(64, 2, 16, bias=bias, filled=0.7, dtype=dtype,
                 device=DEVICE), bias, tolerance)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('tiles', [
    (16, 16), (16, 64), (64, 16), (64, 64), (128, 128)])
def test_any_tiles(tiles, dtype, monkeypatch):
    r"""Also such that two balls share."""
    for name in ('forward_tiles', 'backward_tiles'):
        monkeypatch.setattr(triton, name, lambda *args: Tiles(*tiles, 4, 2))
    torch.manual_seed(0)
    compare(case(64, 2, 16, filled=0.7, box=2., dtype=dtype, device=DEVICE),
            'distance', 1e-5 if dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize('bias', BIASES)
@pytest.mark.parametrize('factor', [1e3, -1e3, 1e10])
def test_large_scores(bias, factor):
    torch.manual_seed(0)
    rows, pos, slope, balls = case(32, bias=bias, filled=0.8, device=DEVICE)
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
    rows, pos, slope, balls = case(16, device=DEVICE)
    rows = [x.detach().clone() for x in rows]
    point = balls.index[20]
    rows[which][point] = torch.nan
    out = ball_attention(*rows, pos, slope, balls)
    ball = balls.inverse // 16 == 1
    assert out[~ball].isfinite().all()
    hit = out[point] if which == 0 else out[ball]
    assert hit.isnan().all()


def test_any_strides():
    torch.manual_seed(0)
    rows, pos, slope, balls = case(32, 4, 16, device=DEVICE)
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


@pytest.mark.parametrize('ball_size', [4, 32])
@pytest.mark.parametrize('filled', [0.5, 1.])
def test_leaves_nothing_unwritten(ball_size, filled):
    r"""Memory starts as NaN and as the largest integers."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        torch.manual_seed(0)
        assert torch.empty(1).isnan()
        compare(case(ball_size, 2, 24, filled=filled, box=2., device=DEVICE),
                'distance')
    finally:
        torch.use_deterministic_algorithms(False)


def test_no_points():
    q = torch.randn(0, 2, 4, requires_grad=True, device=DEVICE)
    slope = torch.ones(2, requires_grad=True, device=DEVICE)
    pos = torch.zeros(0, 3, requires_grad=True, device=DEVICE)
    index = torch.zeros(8, dtype=torch.long, device=DEVICE)
    for slots in (0, 8):
        balls = Balls(8, index[:slots], index[:0],
                      torch.zeros(slots, dtype=torch.bool, device=DEVICE))
        out = ball_attention(q, q, q, pos, slope, balls)
        grads = torch.autograd.grad(out.sum(), [q, pos, slope])
        assert out.shape == grads[0].shape == q.shape
        assert grads[1].shape == pos.shape
        assert grads[2].tolist() == [0., 0.]


@pytest.mark.parametrize('ball_size', [1, 8, 1024, 4096])
def test_brings_points_forward(ball_size):
    torch.manual_seed(0)
    slots = max(2 * ball_size, 24)
    index = torch.randperm(slots, device=DEVICE)
    mask = torch.rand(slots, device=DEVICE) < 0.6
    points, counts = triton._gather(index, mask, ball_size)
    assert counts.tolist() == mask.view(-1, ball_size).sum(1).tolist()
    for ball, count in enumerate(counts.tolist()):
        at = slice(ball * ball_size, (ball + 1) * ball_size)
        assert torch.equal(points[at][:count], index[at][mask[at]])


@pytest.mark.parametrize('ball_size', [1, 8, 128])
def test_one_point(ball_size):
    torch.manual_seed(0)
    compare(case(ball_size, filled=0., num_balls=1, device=DEVICE),
            'distance')


@pytest.mark.parametrize('bias', BIASES)
def test_gradients_one_by_one(bias):
    torch.manual_seed(0)
    rows, pos, slope, balls = case(32, bias=bias, filled=0.7, device=DEVICE)
    args = (*rows, pos, slope, balls.index, balls.inverse, balls.mask,
            balls.box, 32, bias or '')
    with torch.no_grad():
        out, lse = OPS.ball_attention(*args)
        grad = torch.randn_like(out)

    def run(needs: list[bool]) -> list[Tensor]:
        with torch.no_grad():
            return OPS.ball_attention_backward(
                grad, *args[:6], *args[7:9], out, lse, *args[9:], needs)

    count = 3 if bias is None else 5
    together = run([i < count for i in range(5)])
    for i in range(count):
        alone = run([j == i for j in range(5)])
        assert torch.equal(alone[i], together[i])
        assert all(x.numel() == 0 for j, x in enumerate(alone) if j != i)


@pytest.mark.parametrize('bias', BIASES)
def test_second_derivatives(bias):
    r"""Those of single precision are nearly those of double."""
    def run(dtype: torch.dtype, attend: object) -> list[Tensor | None]:
        torch.manual_seed(0)
        rows, pos, slope, balls = case(16, 2, 4, bias=bias, filled=0.8,
                                       device=DEVICE)
        variables = [x.detach().to(dtype).requires_grad_()
                     for x in (*rows, pos, slope) if x is not None]
        rest = variables if slope is not None else [*variables, None]
        out = attend(*rest, balls, bias=bias)
        first = torch.autograd.grad(out.square().sum(), variables,
                                    create_graph=True, allow_unused=True)
        total = sum(x.square().sum() for x in first if x is not None)
        return list(torch.autograd.grad(total, variables, allow_unused=True))

    for a, b in zip(run(torch.float32, ball_attention),
                    run(torch.float64, reference.ball_attention),
                    strict=True):
        assert a is b is None or (a - b).abs().max() <= 1e-4 * (
            1 + b.abs().max())


def test_gives_the_same_bits_again():
    torch.manual_seed(0)
    rows, pos, slope, balls = case(64, filled=0.8, device=DEVICE)
    weight, found = torch.randn_like(rows[0]), []
    for _ in range(2):
        out = ball_attention(*rows, pos, slope, balls)
        found.append([out, *torch.autograd.grad(out, [*rows, pos, slope],
                                                weight)])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize('bias', BIASES)
def test_operators(bias):
    torch.manual_seed(0)
    rows, pos, slope, balls = case(16, bias=bias, filled=0.7, box=2.,
                                   device=DEVICE)
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


def test_compiles():
    torch.manual_seed(0)
    rows, pos, slope, balls = case(16, filled=0.7, device=DEVICE)
    rows = [x.detach().requires_grad_() for x in rows]
    compiled = torch.compile(ball_attention, fullgraph=True,
                             backend='inductor' if GPU else 'aot_eager')
    variables = [*rows, pos, slope]
    weight, found = torch.randn_like(rows[0]), []
    for attend in (compiled, ball_attention):
        out = attend(*variables, balls)
        found.append([out, *torch.autograd.grad(out, variables, weight)])
    assert all(map(torch.equal, *found))


@pytest.mark.skipif(not ASSEMBLER.exists(), reason='no assembler')
def test_compiles_without_a_gpu(tmp_path):
    r"""The interpreter takes more than the compiler does. No kernel may need
    more shared memory than the smaller GPUs have.
    """
    env = {**os.environ, 'TRITON_INTERPRET': '0',
           'TRITON_CACHE_DIR': str(tmp_path)}
    run = subprocess.run(
        [sys.executable, '-m', 'tests.ops.compile_ahead', '80'], env=env,
        cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    shared = [int(line.split()[1]) for line in run.stdout.splitlines()
              if line.startswith(('forward', 'backward'))]
    assert len(shared) == 27 and max(shared) < 99 * 1024


@pytest.mark.parametrize('broken', ['forward', 'backward'])
@pytest.mark.parametrize('dtype,width,pos_dtype,dim,box_dim,small,bias', [
    (torch.float32, 32, torch.float32, 3, 0, False, 'distance'),
    (torch.float16, 20, torch.float64, 2, 2, True, 'squared'),
    (torch.float16, 8, torch.float32, 3, 3, False, 'distance'),
    (torch.float32, 72, torch.float32, 3, 0, True, ''),
])
def test_trial(dtype, width, pos_dtype, dim, box_dim, small, bias, broken,
               monkeypatch):
    r"""Kernels that fail it are not used. It is run within an operator, where
    autograd does not work.
    """
    case = DEVICE, dtype, width, pos_dtype, dim, box_dim, small, bias
    with torch._C._AutoDispatchBelowAutograd():
        assert triton.trial(*case)
    launch = triton._launch
    monkeypatch.setattr(
        triton, '_launch', lambda name, tiles, args: launch(name, tiles, {
            **args, 'scale': args['scale'] * (1.2 if name == broken else 1)}))
    assert not triton.trial(*case)


@pytest.mark.parametrize('allow', [
    lambda: torch.set_float32_matmul_precision('high'),
    lambda: setattr(torch.backends.cuda.matmul, 'allow_tf32', True),
    pytest.param(
        lambda: setattr(torch.backends.cuda.matmul, 'fp32_precision', 'tf32'),
        marks=pytest.mark.skipif(
            not hasattr(torch.backends.cuda.matmul, 'fp32_precision'),
            reason='newer than this PyTorch'))])
def test_precision_of_products(allow, monkeypatch):
    r"""Users' choice, as that of PyTorch's products."""
    seen = []
    launch = triton._launch
    monkeypatch.setattr(
        triton, '_launch', lambda name, tiles, args: (
            seen.append(args['PRECISION']), launch(name, tiles, args)))
    problem = case(16, device=DEVICE)
    compare(problem, 'distance')
    try:
        allow()
        compare(problem, 'distance', 3e-3)
    finally:
        torch.set_float32_matmul_precision('highest')
        if hasattr(torch.backends.cuda.matmul, 'fp32_precision'):
            torch.backends.cuda.matmul.fp32_precision = 'ieee'
    compare(problem, 'distance')
    assert [kind for kind, _ in groupby(seen)] == [
        'tf32x3', 'tf32', 'tf32x3']


@pytest.mark.parametrize('error,remembered', [
    (ValueError('no'), True), (OSError('disk full'), False), (None, True)])
def test_works_remembers_what_lasts(error, remembered, monkeypatch):
    monkeypatch.setattr(native, '_tried', {})
    tries = []

    def trial():
        tries.append(0)
        if error is not None:
            raise error
        return False

    for i in range(2):
        with (nullcontext() if i and remembered else pytest.warns(
                UserWarning, match='kernels for rest do not work here')):
            assert not native.works('rest', trial, 'case')
    assert len(tries) == (1 if remembered else 2)
    assert native.works('rest', lambda: True, 'other case')


@pytest.mark.parametrize('error', [
    torch.OutOfMemoryError('large'), RuntimeError('CUDA: out of memory')])
def test_trials_without_memory_end(error, monkeypatch):
    r"""Nor is that the kernels' fault."""
    monkeypatch.setattr(native, '_tried', {})
    with pytest.raises(type(error), match=str(error)):
        native.works('rest', lambda: (_ for _ in ()).throw(error))
    assert native.works('rest', lambda: True)


@pytest.mark.parametrize('box', [None, 2., 'lattice'])
@pytest.mark.parametrize('bias', BIASES)
def test_stand_in(box, bias, monkeypatch):
    r"""What computes where kernels fail their trial."""
    monkeypatch.setattr(register, '_kernels', lambda *args: chunked)
    rows, pos, slope, balls = case(8, 2, 4, 3, bias, filled=0.8, box=box)
    compare((rows, pos, slope, balls), bias)
    found = chunked.backward(
        [*rows, rows[0], rows[0]], pos, slope, balls.index, balls.mask,
        balls.box, None, 8, bias or '', [True, False, True, False, False])
    assert [x.numel() > 0 for x in found] == [True, False, True, False, False]
