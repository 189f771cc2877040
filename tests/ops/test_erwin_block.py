r"""The block's C++ kernels against its formula in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.nn.attention.in_balls import balls_of
from torch_geometric_erwin.ops.ball_attention import BIASES
from torch_geometric_erwin.ops.erwin_block import (
    BlockWeights,
    cpu,
    erwin_block,
    reference,
)

EPS = (1e-5, 1e-3)
OPS = torch.ops.torch_geometric_erwin
Case = tuple[list[Tensor], BlockWeights, BallTree]


def case(n: int = 50, heads: int = 2, width: int = 4, dim: int = 3,
         bias: str | None = 'distance', hidden: int = 12,
         box: float | None = None) -> Case:
    torch.manual_seed(n)
    channels = heads * width
    x, pos = torch.randn(n, channels), torch.rand(n, dim)
    batch = torch.arange(n) * 3 // max(n, 1)
    tree = BallTree.build(pos, batch, ball_size=8, box=box)
    shapes = [(channels, ), (channels, dim), (channels, ),
              (3 * channels, channels), (3 * channels, ),
              (channels, channels), (channels, ), (channels, ),
              (2 * hidden, channels), (2 * hidden, ), (channels, hidden),
              (channels, )]
    weights = [torch.randn(shape) / shape[-1]**0.5 for shape in shapes]
    slope = None if bias is None else torch.randn(heads)
    variables = [x, tree.offsets(1), tree.pos.clone()]
    for v in (*variables, *weights, slope):
        if v is not None:
            v.requires_grad_()
    return variables, BlockWeights(*weights, slope), tree


def run(case: Case, bias: str | None, dtype: torch.dtype) -> list[Tensor]:
    r"""Returns the result and the gradients of everything."""
    variables, weights, tree = case
    to = [v.detach().to(dtype).requires_grad_() for v in variables]
    w = [v if v is None else v.detach().to(dtype).requires_grad_()
         for v in weights]
    balls = balls_of(tree, 1)
    heads = weights.slope.numel() if weights.slope is not None else 2
    out = erwin_block(*to, BlockWeights(*w), balls, heads, eps=EPS, bias=bias)
    wanted = [v for v in (*to, *w) if v is not None]
    if bias is None:  # then positions play no part
        del wanted[2]
    torch.manual_seed(1)
    weight = torch.randn(out.shape).to(dtype)
    return [out, *torch.autograd.grad(out, wanted, weight)]


def compare(a: list[Tensor], b: list[Tensor], tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape
        if x.numel() > 0:
            assert (x - y).abs().max() <= tolerance * (1 + y.abs().max())


needs_kernels = pytest.mark.skipif(
    not cpu.serves(torch.zeros(1), BlockWeights(*[torch.zeros(1)] * 13)),
    reason='not built')


@needs_kernels
@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0, 1, 2, 7, 50, 333]), st.sampled_from([1, 3, 16]),
       st.integers(1, 5), st.sampled_from(BIASES),
       st.sampled_from([1, 12, 33]), st.sampled_from([None, 1.]))
def test_equals_the_formula(n, width, dim, bias, hidden, box):
    some = case(n, 2, width, dim, bias, hidden, box)
    compare(run(some, bias, torch.float32), run(some, bias, torch.float64),
            1e-5)


@pytest.mark.parametrize('bias', BIASES)
def test_second_derivatives(bias):
    def second(dtype: torch.dtype) -> list[Tensor]:
        variables, weights, tree = case(20, bias=bias)
        variables = [v.detach().to(dtype).requires_grad_() for v in variables]
        # As in a layer: what goes in depends on positions, too.
        x, offset, pos = variables
        x, offset = x + pos.sum(1, keepdim=True), offset * pos
        w = [v if v is None else v.detach().to(dtype).requires_grad_()
             for v in weights]
        out = erwin_block(x, offset, pos, BlockWeights(*w), balls_of(tree, 0),
                          2, eps=EPS, bias=bias)
        every = [v for v in (*variables, *w) if v is not None]
        force, = torch.autograd.grad(out.square().sum(), pos,
                                     create_graph=True)
        return [force, *torch.autograd.grad(force.square().sum(), every)]

    compare(second(torch.float32), second(torch.float64), 1e-4)


@needs_kernels
@pytest.mark.parametrize('bias', BIASES)
def test_operators(bias):
    variables, weights, tree = case(20, bias=bias)
    balls = balls_of(tree, 0)
    assert balls.mask is not None
    sizes = 8, 2, list(EPS), bias or ''
    args = (*variables, *weights, balls.index, balls.inverse, balls.mask, None,
            *sizes)
    opcheck(OPS.erwin_block.default, args)
    with torch.no_grad():
        out, *saved = OPS.erwin_block(*args)
    args = (torch.randn_like(out), *variables, *weights, balls.index,
            balls.mask, None, *saved, *sizes, True, bias is not None)
    args = tuple(v.detach() if isinstance(v, Tensor) else v for v in args)
    opcheck(OPS.erwin_block_backward.default, args)


@needs_kernels
def test_keeps_little():
    r"""Six numbers per channel and one per head, and inputs."""
    variables, weights, tree = case(333, 2, 16, hidden=64)
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        erwin_block(*variables, weights, balls_of(tree, 0), 2, eps=EPS)
    given = {v.data_ptr() for v in (*variables, *weights)}
    own = sum(size for key, size in kept.items() if key not in given)
    assert own <= 333 * (5 * 32 + 2) + 3 * 3 * 400  # and the balls' slots


def test_function_transforms():
    variables, weights, tree = case(20)
    x, offset, pos = (v.detach() for v in variables)
    balls = balls_of(tree, 0)

    def energy(x: Tensor, pos: Tensor) -> Tensor:
        return erwin_block(x, offset, pos, weights, balls, 2,
                           eps=EPS).square().sum()

    found = torch.func.grad(energy, argnums=(0, 1))(x, pos)
    x, pos = x.requires_grad_(), pos.requires_grad_()
    exact = reference.erwin_block(x, offset, pos, weights, balls, 2, EPS,
                                  'distance')
    compare(found, torch.autograd.grad(exact.square().sum(), [x, pos]), 1e-5)


@needs_kernels
class Seen(TorchDispatchMode):
    r"""Notes the names of operators."""
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('grad', [True, False])
def test_modes_see_the_operator(grad):
    r"""Kernels that are called at once are nobody's operators, so they are
    not where somebody looks.
    """
    variables, weights, tree = case(20)
    args = *variables, weights, balls_of(tree, 0), 2
    with torch.set_grad_enabled(grad):
        plain = erwin_block(*args, eps=EPS)
        with Seen() as seen:
            out = erwin_block(*args, eps=EPS)
    assert 'torch_geometric_erwin.erwin_block.default' in seen.names
    assert torch.equal(out, plain) and out.requires_grad == grad


@pytest.mark.filterwarnings('ignore')
def test_traces_keep_the_operator():
    r"""A kernel that is called at once would leave a constant."""
    variables, weights, tree = case(20)
    x, *others = (v.detach() for v in variables)
    weights = BlockWeights._make(
        None if w is None else w.detach() for w in weights)
    args = *others, weights, balls_of(tree, 0), 2
    traced = torch.jit.trace(lambda x: erwin_block(x, *args, eps=EPS), x)
    for y in (x, torch.randn_like(x)):
        assert torch.equal(traced(y), erwin_block(y, *args, eps=EPS))


def test_compiles_to_one_operator():
    variables, weights, tree = case(20)
    balls = balls_of(tree, 0)
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        seen.extend(str(node.target) for node in graph.graph.nodes
                    if node.op == 'call_function')
        return graph

    def block(*variables: Tensor) -> Tensor:
        return erwin_block(*variables, weights, balls, 2, eps=EPS)

    compiled = torch.compile(block, fullgraph=True, backend=backend)
    out, eager = compiled(*variables), block(*variables)
    assert sum('torch_geometric_erwin' in name for name in seen) == 1
    assert torch.equal(out, eager)
    every = [*variables, *weights]
    for a, b in zip(torch.autograd.grad(out.sum(), every),
                    torch.autograd.grad(eager.sum(), every), strict=True):
        assert torch.equal(a, b)
