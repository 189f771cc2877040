r"""The block on scalars and vectors: the kernels against its modules and its
formula.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.nn.hard import hard_batch
from tests.nn.test_guarantees import strong
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.nn import EquivariantErwinBlock
from torch_geometric_erwin.nn.attention.in_balls import balls_of
from torch_geometric_erwin.ops.dense import cpu as dense
from torch_geometric_erwin.ops.distance import length

pytestmark = pytest.mark.skipif(not dense.available(),
                                reason='no C++ kernels')


def case(dim: int = 3, heads: int = 2, bias: str | None = 'distance',
         channels: int = 16, box: float | None = None):
    pos, batch = hard_batch(dim, [1, 2, 40, 300])
    tree = BallTree.build(pos.requires_grad_(), batch, ball_size=32, box=box)
    block = strong(EquivariantErwinBlock(channels, heads, dim=dim, bias=bias))
    x = torch.randn(len(pos), channels, requires_grad=True)
    vec = torch.randn(len(pos), dim, channels, requires_grad=True)
    return block, x, vec, tree


def results(block: torch.nn.Module, x: Tensor, vec: Tensor, tree: BallTree,
            create_graph: bool = False) -> list[Tensor]:
    out = block(x, vec, tree, 1)
    torch.manual_seed(0)
    grads = [torch.randn_like(y) for y in out]
    inputs = [x, vec, tree.pos, *block.parameters()]
    return [*out, *torch.autograd.grad(out, inputs, grads, allow_unused=True,
                                       create_graph=create_graph)]


def close(a: list[Tensor], b: list[Tensor], error: float = 2e-5) -> bool:
    return all((x - y).abs().max() <= error * y.abs().max()
               for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize('box', [None, 3.])
@pytest.mark.parametrize('bias', ['distance', 'squared', None])
@pytest.mark.parametrize('dim, heads, channels', [(2, 1, 6), (3, 4, 16),
                                                  (4, 2, 40)])
def test_equals_modules_and_formula(dim, heads, channels, bias, box,
                                    monkeypatch):
    args = case(dim, heads, bias, channels, box)
    found = results(*args)
    assert close(results(*args, create_graph=True), found)
    calls: list[Callable] = []
    monkeypatch.setattr(EquivariantErwinBlock, '_is_fused',
                        lambda self: calls.append(self))
    assert close(results(*args), found) and calls


def test_hooks_are_called():
    block, x, vec, tree = case()
    seen = []
    before = block(x, vec, tree)
    block.mlp.mlp.lin_in.register_forward_hook(lambda *_: seen.append(1))
    after = block(x, vec, tree)
    assert seen
    assert close(list(after), list(before))


def test_same_bits_on_any_number_of_threads():
    args, before, found = case(), torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(results(*args))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_gradients_of_one_output():
    block, x, vec, tree = case()
    for i in range(2):
        grad, = torch.autograd.grad(block(x, vec, tree)[i].sum(), vec)
        block.attn.register_forward_hook(lambda *_: None)
        other, = torch.autograd.grad(block(x, vec, tree)[i].sum(), vec)
        block.attn._forward_hooks.clear()
        assert close([grad], [other])


def test_operator():
    block, x, vec, tree = case()
    balls = balls_of(tree, 0)
    offset = tree.offsets(0).detach().requires_grad_()
    far = length(offset).unsqueeze(1)
    args = (x, vec, far, offset, tree.pos, *block._weights(), balls.index,
            balls.inverse, balls.mask, balls.box, balls.size, [1e-6, 1e-6],
            'distance')
    args = [a.detach().requires_grad_(a.is_floating_point())
            if isinstance(a, Tensor) else a for a in args]
    torch.library.opcheck(torch.ops.torch_geometric_erwin.equivariant_block,
                          tuple(args))
