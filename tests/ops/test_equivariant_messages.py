r"""Messages on scalars and vectors: all kernels against the formula."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from torch_geometric_erwin.ops.equivariant_messages import (
    cpu,
    equivariant_messages,
    reference,
)
from torch_geometric_erwin.ops.message_passing import EdgeLists
from torch_geometric_erwin.ops.native import isa_level

native = pytest.mark.skipif(not cpu.available(), reason='no C++ kernels')


def case(channels: int, dim: int, sources: int = 50, targets: int = 40,
         edges: int = 333, dtype: torch.dtype = torch.float32,
         ) -> tuple[list[Tensor], Tensor]:
    r"""Some targets without edges, and sources, too."""
    torch.manual_seed(channels + dim)
    edge_index = torch.stack([torch.randint(0, sources - 3, (edges, )),
                              torch.randint(0, targets - 3, (edges, ))])
    shapes = ((sources, channels), (targets, channels),
              (sources, dim, channels), (edges, 2), (edges, dim),
              (channels, 2), (channels, ), (channels, ))
    return [torch.randn(shape, dtype=dtype) for shape in shapes], edge_index


def results(run, variables, dtype=None) -> list[Tensor]:
    variables = [x.to(dtype or x.dtype).requires_grad_() for x in variables]
    out = run(*variables)
    torch.manual_seed(0)
    grads = [torch.randn(x.shape).to(x.dtype) for x in out]
    return [*out, *torch.autograd.grad(out, variables, grads)]


def close(a: list[Tensor], b: list[Tensor], error: float) -> bool:
    return all((x - y).abs().max() <= error * y.abs().max()
               for x, y in zip(a, b, strict=True))


@native
@pytest.mark.parametrize('aggr', ['mean', 'sum'])
@pytest.mark.parametrize('dim', [1, 3, 4])
@pytest.mark.parametrize('channels', [5, 16, 64])
@pytest.mark.parametrize('level', [0, 1, 2])
def test_equals_formula(level, channels, dim, aggr, monkeypatch):
    if isa_level(level) < level:
        pytest.skip('no such vectors here')
    monkeypatch.setattr(cpu, 'WIDEST', level)
    variables, edges = case(channels, dim)
    found = results(lambda *x: equivariant_messages(*x, edges, aggr=aggr),
                    variables)
    exact = results(lambda *x: reference.equivariant_messages(
        *x, edges, aggr, 1e-5), variables, torch.float64)
    assert close(found, exact, 2e-5)


@native
def test_half_precision():
    variables, edges = case(16, 3, dtype=torch.bfloat16)
    run = equivariant_messages
    found = results(lambda *x: run(*x, edges), variables)
    exact = results(lambda *x: run(*x, edges), variables, torch.float32)
    assert found[0].dtype == torch.bfloat16
    assert close(found, exact, 2e-2)


@native
def test_same_bits_on_any_number_of_threads():
    variables, edges = case(32, 3, 3000, 3000, 40000)
    order = torch.randperm(3000)
    lists = EdgeLists.of(edges, 3000, 3000, order)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(results(lambda *x: equivariant_messages(
            *x, edges, lists=lists), variables))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@native
def test_gradients_of_some():
    variables, edges = case(8, 3)
    whole = results(lambda *x: equivariant_messages(*x, edges), variables)
    for i in range(len(variables)):
        some = [x.detach().clone().requires_grad_(k == i)
                for k, x in enumerate(variables)]
        out = equivariant_messages(*some, edges)
        torch.manual_seed(0)
        grads = [torch.randn(x.shape) for x in out]
        grad, = torch.autograd.grad(out, some[i], grads)
        assert torch.equal(grad, whole[2 + i])


def test_no_edges():
    variables, edges = case(8, 3, edges=0)
    found = results(lambda *x: equivariant_messages(*x, edges), variables)
    assert not any(x.any() for x in found)


def test_expects_edges_of_these_nodes():
    variables, edges = case(8, 3)
    with pytest.raises(ValueError, match="'edge' to have one row per edge"):
        equivariant_messages(*variables, edges[:, 1:])
    lists = EdgeLists.of(edges, 51, 40)
    with pytest.raises(ValueError, match=r'edges between 50 sources'):
        equivariant_messages(*variables, edges, lists=lists)


def test_derivatives():
    variables, edges = case(3, 2, 6, 6, 7, torch.float64)
    variables = [x.requires_grad_() for x in variables]

    def run(*x: Tensor) -> tuple[Tensor, Tensor]:
        return equivariant_messages(*x, edges)

    assert gradcheck(run, variables)
    assert gradgradcheck(run, variables, fast_mode=True)


@native
def test_second_derivatives_of_kernels():
    variables, edges = case(8, 3)

    def second(dtype: torch.dtype) -> list[Tensor]:
        some = [x.to(dtype).requires_grad_() for x in variables]
        out = sum(x.square().sum() for x in equivariant_messages(*some,
                                                                 edges))
        first = torch.autograd.grad(out, some[:5], create_graph=True)
        return list(torch.autograd.grad(
            sum(x.square().sum() for x in first), some))

    assert close(second(torch.float32), second(torch.float64), 1e-4)


@native
def test_operator():
    variables, edges = case(8, 3)
    variables = [x.requires_grad_() for x in variables]
    lists = EdgeLists.of(edges, 50, 40)
    torch.library.opcheck(
        torch.ops.torch_geometric_erwin.equivariant_messages,
        (*variables, edges, *lists, 'mean', 1e-5))
