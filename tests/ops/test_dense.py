r"""The C++ kernels against the formulas in double precision."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_geometric_erwin.ops.dense import cpu, reference
from torch_geometric_erwin.ops.native import isa_level

pytestmark = pytest.mark.skipif(not cpu.available(), reason='not built')

EPS = 0.01
NAMES = ['linear', 'norm_linear', 'swiglu']
ROWS = st.one_of(st.integers(0, 40), st.integers(41, 600))
SIZES = st.one_of(st.integers(1, 40), st.sampled_from([48, 64, 96, 128]))
fixed = settings(max_examples=20, deadline=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[
    pytest.param(level, marks=pytest.mark.skipif(
        isa_level(level) != level, reason='needs wider vectors'))
    for level in range(3)])
def widest(request: Any) -> Iterator[int]:
    before, cpu.WIDEST = cpu.WIDEST, request.param
    yield request.param
    cpu.WIDEST = before


class Case:
    r"""A layer's inputs: rows first, and then parameters."""
    def __init__(self, name: str, rows: int, channels: int, width: int,
                 dim: int = 3) -> None:
        self.name = name

        def weight(*shape: int) -> Tensor:
            return torch.randn(shape) * shape[-1]**-0.5

        x = torch.randn(rows, channels)
        if name == 'linear':
            self.inputs = [x, weight(width, channels), torch.randn(width),
                           torch.randn(rows, width)]
        elif name == 'norm_linear':
            self.inputs = [x, torch.randn(channels), torch.randn(rows, dim),
                           weight(channels, dim), torch.randn(channels),
                           weight(width, channels), torch.randn(width)]
        else:
            self.inputs = [x, torch.randn(channels),
                           weight(2 * width, channels),
                           torch.randn(2 * width), weight(channels, width),
                           torch.randn(channels)]
        self.rowwise = {'linear': [0, 3], 'norm_linear': [0, 2],
                        'swiglu': [0]}[name]

    def args(self, inputs: list[Tensor]) -> list[Any]:
        if self.name == 'linear':
            return inputs
        return [*inputs[:2], EPS, *inputs[2:]]

    def forward(self) -> Tensor:
        return getattr(cpu, self.name)(*self.args(self.inputs))

    def backward(self, grad: Tensor) -> list[Tensor]:
        r"""The gradients of all inputs but the residual."""
        args = self.args(self.inputs)
        if self.name == 'linear':
            return list(cpu.linear_backward(grad, *args[:2]))
        if self.name == 'norm_linear':
            return list(cpu.norm_linear_backward(grad, *args[:-1], None,
                                                 True))
        return list(cpu.swiglu_backward(grad, *args[:-1]))

    def exact(self) -> tuple[Tensor, Callable[[Tensor], list[Tensor]]]:
        inputs = [x.double().requires_grad_() for x in self.inputs]
        out = getattr(reference, self.name)(*self.args(inputs))

        def backward(grad: Tensor) -> list[Tensor]:
            return list(torch.autograd.grad(out, inputs, grad.double()))

        return out.detach(), backward

    def taken(self, rows: Tensor) -> 'Case':
        r"""The layer of some of the rows."""
        other = object.__new__(Case)
        other.name, other.rowwise = self.name, self.rowwise
        other.inputs = [x[rows] if i in self.rowwise else x
                        for i, x in enumerate(self.inputs)]
        return other


def check(found: Tensor, exact: Tensor, tolerance: float) -> None:
    assert found.shape == exact.shape and found.dtype == torch.float32
    if exact.numel() > 0:
        most = 1 + exact.abs().max()  # sums may cancel
        assert (found - exact).abs().max() <= tolerance * most


def compare(case: Case) -> None:
    out = case.forward()
    exact, exact_backward = case.exact()
    check(out, exact, 1e-5)
    grad = torch.randn(out.shape)
    found, expected = case.backward(grad), exact_backward(grad)
    for i, (a, b) in enumerate(zip(found, expected, strict=False)):
        check(a, b, 1e-5 if i in case.rowwise else 2e-5)


@fixed
@given(st.sampled_from(NAMES), ROWS, SIZES, SIZES, st.integers(1, 40))
def test_equals_the_formula(widest, name, rows, channels, width, dim):
    torch.manual_seed(rows)
    compare(Case(name, rows, channels, width, dim))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('rows, channels, width',
                         [(3000, 32, 96), (1100, 70, 300), (300, 300, 530)])
def test_more_than_a_tile(widest, name, rows, channels, width):
    torch.manual_seed(0)
    compare(Case(name, rows, channels, width))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('channels, width', [(64, 192), (37, 85)])
def test_threads_do_not_matter(name, channels, width):
    torch.manual_seed(0)
    case, found = Case(name, 2500, channels, width), []
    grad = torch.randn_like(case.forward())
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append([case.forward(), *case.backward(grad)])
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('channels, width', [(32, 64), (19, 45), (280, 290)])
def test_rows_do_not_matter_to_each_other(widest, name, channels, width):
    torch.manual_seed(0)
    case = Case(name, 400, channels, width)
    out = case.forward()
    grad = torch.randn_like(out)
    found = [case.backward(grad)[i] for i in case.rowwise if i < 3]
    for rows in (torch.randperm(400), torch.arange(7, 20), torch.arange(399),
                 *torch.arange(390, 400).split(1)):
        part = case.taken(rows)
        assert torch.equal(part.forward(), out[rows])
        grads = part.backward(grad[rows])
        for i, whole in zip(case.rowwise, found, strict=False):
            assert torch.equal(grads[i], whole[rows])


@pytest.mark.parametrize('name', NAMES)
def test_any_strides(name):
    torch.manual_seed(0)
    case = Case(name, 50, 24, 40)
    out = case.forward()
    grad = torch.randn_like(out)
    expected = [out, *case.backward(grad)]
    case.inputs = [x.repeat_interleave(2, -1)[..., ::2] for x in case.inputs]
    found = [case.forward(), *case.backward(grad.t().contiguous().t())]
    assert all(map(torch.equal, found, expected))
    # Numbers that do not start with a line of the cache.
    case.inputs = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
                   for x in case.inputs]
    found = [case.forward(), *case.backward(grad)]
    assert all(map(torch.equal, found, expected))


def test_what_may_be_missing():
    torch.manual_seed(0)
    x, weight, bias, residual = Case('linear', 30, 20, 9).inputs
    for b in (None, bias):
        for r in (None, residual):
            check(cpu.linear(x, weight, b, r), reference.linear(
                *(y if y is None else y.double() for y in (x, weight, b, r))),
                  1e-5)
    grad = torch.randn(30, 9)
    missing, *rest = cpu.linear_backward(grad, x, weight, needs_x=False)
    assert missing is None
    assert all(map(torch.equal, rest, cpu.linear_backward(grad, x,
                                                          weight)[1:]))

    case = Case('norm_linear', 30, 20, 9)
    args = case.args(case.inputs)[:-1]
    alone = cpu.norm_linear_backward(grad, *args, None, True)
    more = torch.randn(30, 20)
    both = cpu.norm_linear_backward(grad, *args, more, False)
    assert torch.equal(both[0], alone[0] + more) and both[2] is None
    for i in (1, 3, 4, 5, 6):
        assert torch.equal(both[i], alone[i])


@pytest.mark.parametrize('size', [10., 88., 104., 1e4, -88., -104., -1e4,
                                  1e30])
def test_large_gates(widest, size):
    torch.manual_seed(0)
    case = Case('swiglu', 20, 8, 16)
    case.inputs[3][:16] = size
    compare(case)
    grads = case.backward(torch.ones(20, 8))
    assert all(x.isfinite().all() for x in (case.forward(), *grads))


def test_accuracy_of_gates(widest):
    r"""A single channel so small that it is not in what is added to it."""
    x = torch.linspace(-10., 60., 5001).view(-1, 1) * 1e-6
    one, zero, scale = torch.ones(1), torch.zeros(1), torch.full((1, ), 1e6)
    args = (x, scale, 1., torch.tensor([[1.], [0.]]), torch.tensor([0., 1.]),
            one.view(1, 1), zero)
    exact = reference.swiglu(*(
        y.double() if isinstance(y, Tensor) else y for y in args))
    error = (cpu.swiglu(*args) - exact).abs()
    assert (error <= 3e-6 * (exact - x).abs() + 1e-11).all()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_not_a_number_shows(widest, name, value):
    r"""Where there is one, but not in other rows."""
    torch.manual_seed(0)
    case = Case(name, 100, 30, 40)
    case.inputs[0][17, 5] = value
    others = torch.arange(100) != 17
    out = case.forward()
    exact, exact_backward = case.exact()
    grad = torch.randn_like(out)
    dx, expected = case.backward(grad)[0], exact_backward(grad)[0]
    for a, b in ((out, exact), (dx, expected)):
        assert torch.equal(a[17].isnan(), b[17].isnan())
        check(a[others], b[others], 1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_no_rows(name):
    case = Case(name, 0, 5, 7)
    assert case.forward().size(0) == 0
    grads = case.backward(torch.zeros_like(case.forward()))
    for x, d in zip(case.inputs, grads, strict=False):
        assert d.shape == x.shape and not d.any()


def test_serves():
    assert cpu.serves(torch.zeros(1, 2))
    assert not cpu.serves(torch.zeros(1, 2).double())
    assert not cpu.serves(torch.zeros(1, 2, device='meta'))
