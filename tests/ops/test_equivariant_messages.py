r"""Messages on scalars and vectors: all kernels against the formula."""

from typing import Any

import pytest
import torch
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
from torch_geometric_erwin.ops.equivariant_messages import (
    cpu,
    equivariant_messages,
    reference,
    register,
)
from torch_geometric_erwin.ops.message_passing import EdgeLists, edge_lists

OPS = torch.ops.torch_geometric_erwin
EPS = 0.01
native = pytest.mark.skipif(not cpu.available(), reason='no C++ kernels')


@pytest.fixture(params=paths(register), scope='module')
def kernels(request: Any) -> Any:
    with serving(register, *request.param) as found:
        yield found


def case(channels: int, dim: int, sources: int = 13, targets: int = 11,
         edges: int = 70, numbers: int = 2,
         dtype: torch.dtype = torch.float32) -> tuple[list[Any], Tensor]:
    r"""A target of many edges, some without, and sources, too."""
    torch.manual_seed(channels + dim)
    edge_index = torch.stack([torch.randint(0, sources - 3, (edges, )),
                              torch.randint(0, targets - 3, (edges, ))])
    edge_index[1, :edges // 3] = 1
    shapes = ((sources, channels), (targets, channels),
              (sources, dim, channels), (edges, numbers), (edges, dim),
              (channels, numbers), (channels, ), (channels, ))
    return [torch.randn(shape).to(dtype) for shape in shapes], edge_index


def results(variables: list[Any], edge_index: Tensor,
            dtype: torch.dtype | None = None, device: str = 'cpu',
            **kwargs: Any) -> list[Tensor]:
    r"""Sums and all gradients."""
    some = [x if x is None else x.detach().to(device, dtype).requires_grad_()
            for x in variables]
    out = equivariant_messages(*some, edge_index.to(device),
                               **{'eps': EPS, **kwargs})
    torch.manual_seed(0)
    grads = [torch.randn(x.shape).to(device, x.dtype) for x in out]
    return [x.cpu() for x in (*out, *torch.autograd.grad(
        out, [x for x in some if x is not None], grads))]


def close(a: list[Tensor], b: list[Tensor], error: float) -> bool:
    return all(x.shape == y.shape
               and (x - y).abs().max() <= error * (1e-6 + y.abs().max())
               for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize('aggr', ['mean', 'sum'])
@pytest.mark.parametrize('channels,dim,numbers', [
    (5, 1, 2), (16, 3, 1), (20, 2, 9), (64, 3, 2), (100, 4, 3), (130, 5, 17)])
def test_equals_formula(kernels, channels, dim, numbers, aggr):
    problem = case(channels, dim, numbers=numbers)
    found = results(*problem, device=kernels[1], aggr=aggr)
    exact = results(*problem, torch.float64, aggr=aggr)
    assert close(found, exact, 2e-5)


@pytest.mark.parametrize('dim', [2, 3])
def test_one_channel(kernels, dim):
    r"""Whose norm is nothing but the shift."""
    problem = case(1, dim)
    found = results(*problem, device=kernels[1])
    for x, y in zip(found, results(*problem, torch.float64), strict=True):
        assert (x - y).abs().max() <= 1e-5 * (1 + y.abs().max())


@pytest.mark.parametrize('dtype,error', [(torch.float16, 4e-3),
                                         (torch.bfloat16, 3e-2)])
def test_half_precision(kernels, dtype, error):
    problem = case(24, 3, dtype=dtype)
    found = results(*problem, device=kernels[1])
    assert all(x.dtype == dtype for x in found)
    assert close(found, results(*problem, torch.float64), error)


def test_weights_of_another_type(kernels):
    r"""As under autocast."""
    variables, edges = case(24, 3)
    variables[:5] = [x.bfloat16() for x in variables[:5]]
    found = results(variables, edges, device=kernels[1])
    assert [x.dtype for x in found[-3:]] == [torch.float32] * 3
    assert close(found, results(variables, edges, torch.float64), 3e-2)


def test_without_shift(kernels):
    variables, edges = case(20, 3)
    variables[-1] = None
    assert close(results(variables, edges, device=kernels[1]),
                 results(variables, edges, torch.float64), 2e-5)


def test_large_numbers(kernels):
    r"""Where activations vanish or grow, nothing is lost by the way."""
    variables, edges = case(24, 3)
    variables[0] *= 30.
    variables[2][5] *= 30.
    variables[1][3] = 1e4
    assert close(results(variables, edges, device=kernels[1]),
                 results(variables, edges, torch.float64), 1e-4)


def test_not_a_number_shows(kernels):
    r"""In messages of its point, and nowhere else."""
    variables, edges = case(8, 3)
    variables[2][7, 1, 2] = torch.nan
    out = results(variables, edges, device=kernels[1])[:2]
    hit = torch.zeros(11).index_add(0, edges[1], (edges[0] == 7).float()) > 0
    assert hit.any() and not hit.all()
    assert all(torch.equal(x.flatten(1).isnan().all(1), hit) for x in out)
    assert all(torch.equal(x.flatten(1).isnan().any(1), hit) for x in out)


def test_strides(kernels):
    r"""Rows may be columns of something wider."""
    variables, edges = case(12, 3, 11, 11)
    expected = results(variables, edges, device=kernels[1])
    both = torch.cat(variables[:2], 1).to(kernels[1]).chunk(2, 1)
    vec = variables[2].to(kernels[1]).transpose(0, 1).contiguous()
    some = [*both, vec.transpose(0, 1),
            *(x.to(kernels[1]) for x in variables[3:])]
    found = equivariant_messages(*some, edges.to(kernels[1]), eps=EPS)
    assert close([x.cpu() for x in found], expected[:2], 1e-6)


def test_same_bits(kernels):
    r"""Again, and on any number of threads."""
    problem, order = case(32, 3), None
    if kernels[0] is cpu:
        problem = case(32, 3, 3000, 3000, 40000)
        order = torch.randperm(3000)
    edges = problem[1].to(kernels[1])
    lists = EdgeLists.of(edges, *(len(x) for x in problem[0][:2]), order)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(results(*problem, device=kernels[1], lists=lists))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize('sources', [9, 11, 15])
def test_order(kernels, sources):
    r"""In which targets are taken; it does not tell."""
    problem = case(12, 3, sources)
    edges = problem[1].to(kernels[1])
    lists = EdgeLists.of(edges, sources, 11, torch.randperm(11).to(kernels[1]))
    assert close(results(*problem, device=kernels[1], lists=lists),
                 results(*problem, torch.float64), 2e-5)


def test_lists_of_other_devices(kernels):
    r"""Are made again."""
    problem = case(8, 3)
    expected = results(*problem, device=kernels[1])
    for lists in (EdgeLists.of(problem[1], 13, 11), EdgeLists(
            *edge_lists._by_sorting(problem[1], 13, 11), None)):
        there = EdgeLists(*(x if x is None else x.to(kernels[1])
                            for x in lists))
        assert close(results(*problem, device=kernels[1], lists=there),
                     expected, 1e-6)


@pytest.mark.parametrize('which', range(8))
def test_gradients_of_some(kernels, which):
    variables, edges = case(8, 3)
    whole = results(variables, edges, device=kernels[1])
    some = [x.to(kernels[1]).requires_grad_(k == which)
            for k, x in enumerate(variables)]
    out = equivariant_messages(*some, edges.to(kernels[1]), eps=EPS)
    torch.manual_seed(0)
    grads = [torch.randn(x.shape).to(kernels[1]) for x in out]
    grad, = torch.autograd.grad(out, some[which], grads)
    assert close([grad.cpu()], [whole[2 + which]], 1e-5)


def test_no_edges(kernels):
    found = results(*case(8, 3, edges=0), device=kernels[1])
    assert not any(x.any() for x in found)


def test_no_nodes(kernels):
    found = results([x[:0] if i < 5 else x for i, x in enumerate(
        case(8, 3)[0])], torch.zeros(2, 0, dtype=torch.long),
        device=kernels[1])
    assert not any(x.any() for x in found)


def test_expects_edges_of_these_nodes():
    variables, edges = case(8, 3)
    with pytest.raises(ValueError, match="'edge' to have one row per edge"):
        equivariant_messages(*variables, edges[:, 1:])
    lists = EdgeLists.of(edges, 14, 11)
    with pytest.raises(ValueError, match=r'edges between 13 sources'):
        equivariant_messages(*variables, edges, lists=lists)


def test_derivatives():
    variables, edges = case(3, 2, 6, 6, 7, dtype=torch.float64)
    variables = [x.requires_grad_() for x in variables]

    def run(*x: Tensor) -> tuple[Tensor, Tensor]:
        return equivariant_messages(*x, edges)

    assert gradcheck(run, variables)
    assert gradgradcheck(run, variables, fast_mode=True)


def test_second_derivatives(kernels):
    variables, edges = case(8, 3)

    def second(dtype: torch.dtype, device: str) -> list[Tensor]:
        some = [x.to(device, dtype).requires_grad_() for x in variables]
        out = sum(x.square().sum() for x in equivariant_messages(
            *some, edges.to(device), eps=EPS))
        first = torch.autograd.grad(out, some[:5], create_graph=True)
        return [x.cpu() for x in torch.autograd.grad(
            sum(x.square().sum() for x in first), some)]

    assert close(second(torch.float32, kernels[1]),
                 second(torch.float64, 'cpu'), 1e-4)


@pytest.mark.parametrize('aggr', ['mean', 'sum'])
def test_stand_in_without_autograd(aggr):
    problem = case(8, 3, dtype=torch.float64)
    expected = results(*problem, aggr=aggr)
    torch.manual_seed(0)
    grads = [torch.randn(x.shape).double() for x in expected[:2]]
    rest = problem[1], None, aggr, EPS
    found = [*reference.forward(problem[0], *rest), *reference.backward(
        grads, problem[0], *rest, [True] * 8)]
    assert close(found, expected, 1e-12)


def test_operators(kernels):
    variables, edges = case(8, 3)
    variables = [x.to(kernels[1]).requires_grad_() for x in variables]
    edges = edges.to(kernels[1])
    lists = EdgeLists.of(edges, 13, 11)
    opcheck(OPS.equivariant_messages.default,
            (*variables, edges, *lists, 'mean', EPS))
    grads = [torch.randn(shape, device=kernels[1])
             for shape in ((11, 8), (11, 3, 16))]
    for needs in [True] * 8, [True, False] * 4, [False, True] * 4:
        opcheck(OPS.equivariant_messages_backward.default,
                (*grads, *(x.detach() for x in variables), edges, *lists,
                 'mean', EPS, needs))


def test_compiles():
    variables, edges = case(8, 3)
    some = [x.to(DEVICE).requires_grad_() for x in variables]
    edges = edges.to(DEVICE)

    def run(*x: Tensor) -> tuple[Tensor, Tensor]:
        return equivariant_messages(*x, edges, eps=EPS)

    compiled = torch.compile(run, fullgraph=True, dynamic=True)
    found, expected = compiled(*some), run(*some)
    grads = [torch.randn_like(x) for x in expected]
    assert close([*found, *torch.autograd.grad(found, some, grads)],
                 [*expected, *torch.autograd.grad(expected, some, grads)],
                 1e-5)


@pytest.mark.parametrize('dtype,channels,axes,dims,has_shift,aggr', [
    (torch.float32, 64, 3, 1, True, 'mean'),
    (torch.float16, 20, 2, 9, False, 'sum')])
def test_trial(dtype, channels, axes, dims, has_shift, aggr, monkeypatch):
    r"""Kernels that fail it are not used. It is run within an operator, where
    autograd does not work.
    """
    pytest.importorskip('triton')
    triton = register.triton
    shorten(triton.trials, monkeypatch)
    monkeypatch.setattr(edge_lists, 'library', lambda: None)
    case = torch.device(DEVICE), dtype, torch.float32, channels, axes, dims
    with torch._C._AutoDispatchBelowAutograd():
        assert triton.trial(*case, has_shift, aggr)
    launch = triton._launch
    for broken in ('forward', 'backward', 'backward_sources'):
        monkeypatch.setattr(
            triton, '_launch', lambda kernel, programs, args, broken=broken:
            launch(kernel, programs, {**args, 'unit': args['unit'] * (
                1.2 if kernel == broken else 1)}))
        assert not triton.trial(*case, has_shift, aggr)


def test_compiles_without_a_gpu(tmp_path):
    pytest.importorskip('triton')
    if not register.triton.has_tuples():
        pytest.skip('needs a newer Triton')
    shared = compile_ahead('compile_equivariant_messages_ahead', tmp_path)
    assert len(shared) == 15 and max(shared) < 99 * 1024
