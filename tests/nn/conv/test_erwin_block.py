r"""A block is computed as a whole, unless somebody would notice."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import Linear
from torch.nn.utils import parametrize, prune

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.nn import ErwinBlock
from torch_geometric_erwin.nn.conv import erwin_block as module


@pytest.fixture
def block() -> ErwinBlock:
    torch.manual_seed(0)
    block = ErwinBlock(8, 2)
    for p in block.parameters():
        torch.nn.init.normal_(p)
    return block


@pytest.fixture
def args() -> tuple[Tensor, BallTree]:
    torch.manual_seed(0)
    tree = BallTree.build(torch.rand(30, 3), ball_size=8)
    return torch.randn(30, 8), tree


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    r"""Has an entry for each block that was computed as a whole."""
    calls: list[int] = []

    def counting(*args: object, **kwargs: object) -> Tensor:
        calls.append(1)
        return op(*args, **kwargs)

    op = module.erwin_block
    monkeypatch.setattr(module, 'erwin_block', counting)
    return calls


def by_parts(block: ErwinBlock, x: Tensor, tree: BallTree,
             partition: int = 0) -> Tensor:
    x = x + block.attn(block.norm1(x), tree, partition)
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize('partition', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64,
                                   torch.bfloat16])
def test_equals_its_parts(block, args, calls, dtype, partition):
    block, x = block.to(dtype), args[0].to(dtype)
    out = block(x, args[1], partition)
    expected = by_parts(block, x, args[1], partition)
    assert calls and out.dtype == dtype
    assert torch.allclose(out, expected, atol=1e-4, rtol=1e-4)
    assert dtype == torch.float32 or torch.equal(out, expected)


NAMES = ['attn', 'mlp', 'norm1', 'norm2', 'attn.lin_pos', 'attn.lin_qkv',
         'attn.lin_out', 'mlp.lin_in', 'mlp.lin_out']


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kind', ['forward', 'forward_pre', 'full_backward'])
def test_hooks_are_called(block, args, calls, name, kind):
    seen: list[str] = []
    part = block.get_submodule(name)
    register = getattr(part, f'register_{kind}_hook')
    handle = register(lambda *_: seen.append(kind))
    block(args[0].requires_grad_(), args[1]).sum().backward()
    assert seen == [kind] and not calls
    handle.remove()
    block(*args)
    assert calls


def test_hooks_on_all_modules_are_called(block, args, calls):
    seen: list[torch.nn.Module] = []
    register = torch.nn.modules.module.register_module_forward_hook
    handle = register(lambda module, *_: seen.append(module))
    block(*args)
    handle.remove()
    assert block.mlp.lin_in in seen and not calls


class Half(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def test_parametrized_weights_count(block, args, calls):
    before = block(*args)
    parametrize.register_parametrization(block.mlp.lin_out, 'weight', Half())
    after = block(*args)
    assert len(calls) == 1 and not torch.allclose(before, after)
    assert torch.allclose(after, by_parts(block, *args))


def test_pruned_weights_count(block, args, calls):
    prune.l1_unstructured(block.attn.lin_out, 'weight', amount=0.5)
    assert torch.allclose(block(*args), by_parts(block, *args))
    assert not calls


class Doubled(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_replaced_modules_count(block, args, calls):
    block.mlp.lin_out = Doubled(32, 8)
    assert torch.allclose(block(*args), by_parts(block, *args))
    lin = block.attn.lin_out
    lin.forward = lambda x: torch.zeros_like(x)
    assert torch.allclose(block(*args), by_parts(block, *args))
    assert not calls


def test_missing_biases(block, args):
    block.attn.lin_out = Linear(8, 8, bias=False)
    block.norm1 = torch.nn.RMSNorm(8, elementwise_affine=False)
    assert torch.allclose(block(*args), by_parts(block, *args), atol=1e-4)


def test_dropout(args, calls):
    block = ErwinBlock(8, 2, dropout=0.5)
    assert not torch.equal(block(*args), block(*args)) and not calls
    block.eval()
    assert torch.equal(block(*args), block(*args)) and calls
    calls.clear()
    block.mlp.train()
    assert not torch.equal(block(*args), block(*args)) and not calls


def test_autocast(block, args):
    with torch.autocast('cpu', torch.bfloat16):
        out = block(*args)
        expected = by_parts(block, *args)
    assert torch.allclose(out, expected, atol=.1, rtol=.1)
    assert not torch.allclose(out, by_parts(block, *args), atol=1e-4)


def test_autocast_norms(block, args):
    r"""PyTorch warns where it has no kernel, but many operations."""
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(), torch.autocast('cpu', torch.bfloat16):
            warnings.simplefilter('error')
            assert block(args[0].bfloat16(), *args[1:]).isfinite().all()
    finally:
        torch.set_warn_always(always)


def test_frozen_weights(block, args):
    x = args[0].requires_grad_()
    block.requires_grad_(False)
    block.mlp.lin_out.weight.requires_grad_()
    found = torch.autograd.grad(block(*args).sum(),
                                [x, block.mlp.lin_out.weight])
    expected = torch.autograd.grad(by_parts(block, *args).sum(),
                                   [x, block.mlp.lin_out.weight])
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize('x, partition, message', [
    (torch.zeros(30, 4), 0, "Expected 'x' to have 8 channels"),
    (torch.zeros(29, 8), 0, "Expected 'x' to have one row per point"),
    (torch.zeros(30, 8), 2, "Expected 'partition' to be one of"),
])
def test_errors(block, args, x, partition, message):
    with pytest.raises(ValueError, match=message):
        block(x, args[1], partition)
