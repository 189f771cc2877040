r"""Messages by all kernels against their formula in double precision."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

from tests.ops.message_paths import (
    DEVICE,
    compile_ahead,
    paths,
    serving,
    shorten,
)
from torch_geometric_erwin.ops import message_passing as package
from torch_geometric_erwin.ops.message_passing import (
    EdgeLists,
    cpu,
    message_passing,
    reference,
    register,
)

OPS = torch.ops.torch_geometric_erwin
EPS = 0.01


@pytest.fixture(params=paths(register), scope='module')
def kernels(request: Any) -> Any:
    with serving(register, *request.param) as found:
        yield found


def case(sources: int, targets: int, edges: int, channels: int, dims: int,
         kind: str = 'any', shift: bool = True,
         dtype: torch.dtype = torch.float32) -> tuple[list, Tensor]:
    torch.manual_seed(edges)
    shapes = [(sources, channels), (targets, channels), (edges, dims),
              (channels, dims), (channels, ), (channels, )]
    variables: list[Any] = [torch.randn(shape).to(dtype).requires_grad_()
                            for shape in shapes]
    if not shift:
        variables[-1] = None
    edge_index = torch.stack([torch.randint(max(sources, 1), (edges, )),
                              torch.randint(max(targets, 1), (edges, ))])
    if kind == 'sorted':
        edge_index = edge_index[:, edge_index[1].argsort(stable=True)]
    elif kind == 'one target':
        edge_index[1] = targets - 1
    elif kind == 'repeated':
        edge_index = edge_index[:, :1].expand(2, edges)
    elif kind == 'loops':
        edge_index[0] = edge_index[1] % max(sources, 1)
    return variables, edge_index


def run(variables: list, edge_index: Tensor, aggr: str,
        dtype: torch.dtype | None = None, device: str = 'cpu',
        **kwargs: Any) -> list[Tensor]:
    r"""The result and all gradients."""
    some = [v if v is None else v.detach().to(device, dtype).requires_grad_()
            for v in variables]
    out = message_passing(*some, edge_index.to(device), aggr=aggr, eps=EPS,
                          **kwargs)
    torch.manual_seed(1)
    weight = torch.randn(out.shape).to(device, out.dtype)
    return [x.cpu() for x in (out, *torch.autograd.grad(
        out, [v for v in some if v is not None], weight))]


def compare(a: list[Tensor], b: list[Tensor], tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape
        if x.numel() > 0:
            assert (x - y).abs().max() <= tolerance * (1 + y.abs().max())


KINDS = ['any', 'sorted', 'one target', 'repeated', 'loops']


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12),
       st.one_of(st.integers(0, 40), st.integers(100, 300)),
       st.one_of(st.integers(1, 20), st.sampled_from([32, 64, 100, 130])),
       st.integers(1, 9), st.sampled_from(KINDS), st.booleans(),
       st.sampled_from(['mean', 'sum']))
@example(1, 1, 0, 4, 3, 'any', True, 'mean')
@example(1, 1, 1, 1, 1, 'loops', True, 'mean')
@example(5, 300, 9, 16, 3, 'any', True, 'mean')  # most have no edges
def test_equals_the_formula(kernels, sources, targets, edges, channels, dims,
                            kind, shift, aggr):
    if kind == 'repeated' and edges == 0:
        edges = 1
    problem = case(sources, targets, edges, channels, dims, kind, shift)
    exact = run(*problem, aggr, torch.float64)
    compare(run(*problem, aggr, device=kernels[1]), exact, 2e-5)


@pytest.mark.parametrize('dtype,tolerance', [
    (torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_half_precision(kernels, dtype, tolerance):
    problem = case(30, 20, 200, 24, 3, dtype=dtype)
    found = run(*problem, 'mean', device=kernels[1])
    assert all(x.dtype == dtype for x in found)
    compare(found, run(*problem, 'mean', torch.float64), tolerance)


def test_large_numbers(kernels):
    r"""Where activations vanish or grow, nothing is lost by the way."""
    variables, edge_index = case(30, 20, 200, 24, 3)
    with torch.no_grad():
        variables[0] *= 30.
        variables[1][3] = 1e4
    compare(run(variables, edge_index, 'mean', device=kernels[1]),
            run(variables, edge_index, 'mean', torch.float64), 1e-4)


def test_not_a_number_shows(kernels):
    r"""In messages of its point, and nowhere else."""
    variables, edge_index = case(30, 20, 60, 8, 3)
    with torch.no_grad():
        variables[0][7, 2] = torch.nan
        edge_index[0, :3] = 7
    out = run(variables, edge_index, 'mean', device=kernels[1])[0]
    hit = torch.zeros(20).index_add_(
        0, edge_index[1], (edge_index[0] == 7).float()) > 0
    assert hit.any() and torch.equal(out.isnan().all(1), hit)


def test_strides(kernels):
    r"""Rows may be columns of something wider."""
    variables, edge_index = case(15, 15, 90, 12, 3)
    both = torch.cat([v.detach() for v in variables[:2]], 1)
    both = both.to(kernels[1]).requires_grad_()
    rest = [v.detach().to(kernels[1]) for v in variables[2:]]
    out = message_passing(*both.chunk(2, 1), *rest, edge_index.to(kernels[1]))
    found, = torch.autograd.grad(out.square().sum(), both)
    src, dst = (v.to(kernels[1]) for v in variables[:2])
    other = message_passing(src, dst, *rest, edge_index.to(kernels[1]))
    expected = torch.autograd.grad(other.square().sum(), variables[:2])
    compare([found.cpu()], [torch.cat(expected, 1)], 1e-6)


@pytest.mark.parametrize('which', range(6))
def test_gradients_one_by_one(kernels, which):
    variables, edge_index = case(9, 9, 30, 7, 2)
    some = [v.detach().to(kernels[1]) for v in variables]
    some[which].requires_grad_()
    out = message_passing(*some, edge_index.to(kernels[1]), eps=EPS)
    found, = torch.autograd.grad(out.square().sum(), some[which])
    double = [v.detach().double() for v in variables]
    double[which].requires_grad_()
    out = reference.message_passing(*double, edge_index, 'mean', EPS)
    expected, = torch.autograd.grad(out.square().sum(), double[which])
    compare([found.cpu()], [expected], 1e-5)


@pytest.mark.parametrize('aggr', ['mean', 'sum'])
def test_derivatives_of_any_order(kernels, aggr):
    def second(dtype: torch.dtype, device: str) -> list[Tensor]:
        variables, edge_index = case(9, 9, 30, 5, 2)
        some = [v.detach().to(device, dtype).requires_grad_()
                for v in variables]
        out = message_passing(*some, edge_index.to(device), aggr=aggr)
        force, = torch.autograd.grad(out.square().sum(), some[2],
                                     create_graph=True)
        return [x.cpu() for x in (force, *torch.autograd.grad(
            force.square().sum(), some))]

    compare(second(torch.float32, kernels[1]), second(torch.float64, 'cpu'),
            1e-4)


def test_operators(kernels):
    variables, edge_index = case(9, 12, 30, 8, 3)
    variables = [v.detach().to(kernels[1]).requires_grad_()
                 for v in variables]
    edge_index = edge_index.to(kernels[1])
    lists = EdgeLists.of(edge_index, 9, 12)
    args = *variables, edge_index, *lists, 'mean', EPS
    opcheck(OPS.message_passing.default, args)
    grad = torch.randn(12, 8, device=kernels[1])
    for needs in [True] * 6, [True, False, True, False, True, False]:
        opcheck(OPS.message_passing_backward.default,
                (grad, *(x.detach() for x in variables), edge_index, *lists,
                 'mean', EPS, needs))
    opcheck(OPS.list_edges.default, (edge_index, 9, 12, None))


def test_same_bits(kernels):
    r"""Again, and on any number of threads."""
    problem = case(3_000, 3_000, 50_000, 32, 3)
    if kernels[0] is not cpu:
        problem = case(40, 40, 400, 32, 3)
    expected = run(*problem, 'mean', device=kernels[1])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found = run(*problem, 'mean', device=kernels[1])
            assert all(map(torch.equal, found, expected))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('sources', [25, 40, 60])
def test_order(kernels, sources):
    r"""In which targets are taken; it does not tell."""
    problem = case(sources, 40, 200, 12, 3)
    expected = run(*problem, 'mean', torch.float64)
    edge_index = problem[1].to(kernels[1])
    order = torch.randperm(40).to(kernels[1])
    lists = EdgeLists.of(edge_index, sources, 40, order)
    compare(run(*problem, 'mean', device=kernels[1], lists=lists), expected,
            1e-5)


def test_lists_of_other_devices(kernels):
    r"""Are made again."""
    variables, edge_index = case(9, 12, 30, 8, 3)
    lists = EdgeLists.of(edge_index, 9, 12)
    sorted_ = package.edge_lists._by_sorting(edge_index, 9, 12)
    expected = run(variables, edge_index, 'mean', device=kernels[1])
    for some in (lists, EdgeLists(*sorted_, None)):
        some = EdgeLists(*(x if x is None else x.to(kernels[1])
                           for x in some))
        found = run(variables, edge_index, 'mean', device=kernels[1],
                    lists=some)
        compare(found, expected, 1e-6)


def test_expects_numbers_of_each_edge(kernels):
    variables, edge_index = case(9, 12, 30, 8, 3)
    variables[2] = variables[2][:-1]
    with pytest.raises(ValueError, match=r"per edge, 30 \(got 29\)"):
        run(variables, edge_index, 'mean')
    few = EdgeLists.of(edge_index[:, 1:], 9, 12)
    with pytest.raises(ValueError, match='a list of 29 edges between 9 and'):
        run(case(9, 12, 30, 8, 3)[0], edge_index, 'mean', lists=few)


def test_gradcheck():
    variables, edge_index = case(5, 6, 14, 3, 2)
    some = [v.detach().double().requires_grad_() for v in variables]

    def fn(*some: Tensor) -> Tensor:
        return message_passing(*some, edge_index)

    assert gradcheck(fn, some) and gradgradcheck(fn, some)


@pytest.mark.parametrize('aggr', ['mean', 'sum'])
def test_stand_in_without_autograd(aggr):
    variables, edge_index = case(9, 12, 30, 8, 3, dtype=torch.float64)
    out = reference.message_passing(*variables, edge_index, aggr, EPS)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, variables, grad)
    found = reference.backward(grad, variables, edge_index, None, aggr, EPS,
                               [True] * 6)
    compare(found, list(expected), 1e-12)


@pytest.mark.skipif(not cpu.available(), reason='not built')
def test_stores_nothing_of_edges_times_channels(tmp_path):
    code = '''
import resource, torch
from torch_geometric_erwin.ops.message_passing import message_passing
n, k, c = 2_000, 200, 128
edge_index = torch.stack([torch.randint(n, (n * k, )),
                          torch.arange(n).repeat_interleave(k)])
x = torch.randn(n, c, requires_grad=True)
args = torch.randn(n * k, 3), torch.randn(c, 3), torch.ones(c), torch.ones(c)

def step(edges):
    out = message_passing(x, x, args[0][edges], *args[1:],
                          edge_index[:, edges])
    torch.autograd.grad(out.sum(), x)

step(slice(100))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(slice(None))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
'''
    run = subprocess.run([sys.executable, '-c', code], capture_output=True,
                         text=True, check=True)
    kilobytes = 2_000 * 200 * 128 * 4 / 1024
    assert int(run.stdout) < kilobytes / 4


@pytest.mark.parametrize('aggr', ['mean', 'sum'])
def test_compiles(aggr):
    variables, edge_index = case(9, 9, 30, 8, 3)

    def fn(*some: Tensor) -> Tensor:
        return message_passing(*some, edge_index, aggr=aggr)

    compiled = torch.compile(fn, fullgraph=True, dynamic=True)
    out = compiled(*variables)
    expected = fn(*variables)
    assert torch.allclose(out, expected, atol=1e-6)
    weight = torch.randn_like(out)
    compare(list(torch.autograd.grad(out, variables, weight)),
            list(torch.autograd.grad(expected, variables, weight)), 1e-6)


@pytest.mark.parametrize('dtype,channels,dims,has_shift,aggr', [
    (torch.float32, 64, 3, True, 'mean'), (torch.float16, 20, 9, False, 'sum'),
])
def test_trial(dtype, channels, dims, has_shift, aggr, monkeypatch):
    r"""Kernels that fail it are not used. It is run within an operator, where
    autograd does not work.
    """
    pytest.importorskip('triton')
    triton = register.triton
    shorten(triton.trials, monkeypatch)
    monkeypatch.setattr(package.edge_lists, 'library', lambda: None)
    case = torch.device(DEVICE), dtype, torch.float32, channels, dims
    with torch._C._AutoDispatchBelowAutograd():
        assert triton.trial(*case, has_shift, aggr)
    launch = triton._launch
    for broken in ('forward', 'backward', 'backward_sources'):
        monkeypatch.setattr(
            triton, '_launch', lambda kernel, programs, args, broken=broken:
            launch(kernel, programs, {**args, 'edge': args['edge'] * (
                1.2 if kernel == broken else 1)}))
        assert not triton.trial(*case, has_shift, aggr)


def test_compiles_without_a_gpu(tmp_path):
    shared = compile_ahead('compile_messages_ahead', tmp_path)
    assert len(shared) == 15 and max(shared) < 99 * 1024
