r"""What holds for every layer: clouds never mix, virtual slots are invisible,
the order of the points does not matter.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import GCNConv

from tests.clouds import Clouds, clouds
from tests.nn.hard import hard_batch
from torch_geometric_erwin import (
    BallAttention,
    BallPooling,
    BallTree,
    BallUnpooling,
    EquivariantErwinConv,
    EquivariantErwinTransformer,
    EquivariantMPNNConv,
    ErwinConv,
    ErwinGPSConv,
    ErwinTransformer,
    knn_graph,
)
from torch_geometric_erwin.nn import MPNNConv

Run = Callable[[Tensor, Tensor, Tensor], Tensor]


class UpAndDown(torch.nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pool = BallPooling(8, 12, 4, dim=dim)
        self.unpool = BallUnpooling(12, 8, 4, dim=dim)

    def forward(self, x: Tensor, tree: BallTree) -> Tensor:
        out, coarse = self.pool(x, tree)
        return self.unpool(out, coarse, x, tree)


class WithVectors(torch.nn.Module):
    r"""Gives a layer vectors of its features, and returns all in a row."""
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        factor = torch.arange(1., self.layer.dim + 1, dtype=x.dtype,
                              device=x.device)
        vec = x.unsqueeze(1) * factor.view(1, -1, 1).cos()
        return flat(self.layer(x, vec, *args))


def flat(out: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten(1) for part in out], dim=1)


def strong(module: torch.nn.Module) -> torch.nn.Module:
    r"""Gives a module weights that make mistakes visible."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def make(name: str, dim: int, box: float | None = None) -> tuple[
        torch.nn.Module, Run]:
    r"""Returns a module and how to apply it to features, positions and
    clouds.
    """
    def tree_of(pos: Tensor, batch: Tensor, strides: tuple = ()) -> BallTree:
        return BallTree.build(pos, batch, ball_size=16, strides=strides,
                              box=box)

    def edges(pos: Tensor, batch: Tensor) -> Tensor:
        return knn_graph(pos, 4, batch, box=box)

    module: torch.nn.Module
    if name == 'attention':
        module = BallAttention(8, 2, dim=dim)
    elif name == 'squared':
        module = BallAttention(8, 2, dim=dim, bias='squared')
    elif name == 'conv':
        module = ErwinConv(8, 16, 2, dim=dim)
    elif name == 'mpnn':
        module = MPNNConv(8, dim=dim)
    elif name == 'bessel':
        module = MPNNConv(8, dim=dim, basis='bessel', cutoff=0.5)
    elif name == 'gps':
        module = ErwinGPSConv(8, GCNConv(8, 8), 2, dim=dim)
    elif name == 'pool':
        module = UpAndDown(dim)
    elif name == 'equivariant conv':
        module = WithVectors(EquivariantErwinConv(8, 16, 2, dim=dim))
    elif name == 'equivariant mpnn':
        module = WithVectors(EquivariantMPNNConv(8, dim=dim))
    elif name == 'equivariant model':
        module = EquivariantErwinTransformer(
            8, [8, 16], 3, out_vectors=2, dim=dim, depths=1, heads=2,
            ball_sizes=[16, 8], strides=(4, ), mp_steps=1, k=4)
        return strong(module), lambda x, pos, batch: flat(module(
            x, pos=pos, batch=batch, box=box))
    else:
        module = ErwinTransformer(
            8, [8, 16, 16], dim=dim, depths=[2, 1, 2], heads=[2, 2, 4],
            ball_sizes=[16, 8, 8], strides=(4, 2), mp_steps=1, k=4)
        return strong(module), lambda x, pos, batch: module(
            x, pos=pos, batch=batch, box=box)

    def run(x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        if name in ('mpnn', 'bessel', 'gps'):
            return module(x, edges(pos, batch), tree_of(pos, batch))
        if name == 'equivariant mpnn':
            return module(x, tree_of(pos, batch), edges(pos, batch))
        return module(x, tree_of(pos, batch, (4, ) if name == 'pool' else ()))

    return strong(module), run


NAMES = ['attention', 'squared', 'conv', 'mpnn', 'bessel', 'gps', 'pool',
         'model', 'equivariant conv', 'equivariant mpnn', 'equivariant model']
# Batch normalization mixes what it normalizes, as it is meant to:
TRAINABLE = ['attention', 'squared', 'conv', 'mpnn', 'bessel',
             'equivariant conv', 'equivariant mpnn']


@pytest.mark.parametrize('box', [None, 4.])
@pytest.mark.parametrize('dim', [1, 2, 3, 5])
@pytest.mark.parametrize('name', NAMES)
def test_clouds_never_mix(name, dim, box):
    pos, batch = hard_batch(dim)
    x = torch.randn(len(pos), 8)
    module, run = make(name, dim, box)
    for training in {name in TRAINABLE, False}:
        module.train(training)
        out = run(x, pos, batch)
        assert out.isfinite().all()
        for i in range(int(batch.max()) + 1):
            own = batch == i
            alone = run(x[own], pos[own], batch[own] * 0)
            assert torch.allclose(out[own], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('name', NAMES)
def test_gpu_equals_cpu(name):
    pos, batch = hard_batch(3)
    pos.requires_grad_()
    x = torch.randn(len(pos), 8)
    module, run = make(name, 3)
    module.eval()
    out = run(x, pos, batch)
    grad, = torch.autograd.grad(out.square().sum(), pos)
    module.cuda()
    other = run(x.cuda(), pos.cuda(), batch.cuda())
    moved, = torch.autograd.grad(other.square().sum(), pos)
    assert torch.allclose(out, other.cpu(), atol=1e-3, rtol=1e-3)
    assert (grad - moved).abs().max() < 1e-2 * grad.abs().max()


@pytest.mark.parametrize('name', NAMES)
def test_order_does_not_matter(name):
    torch.manual_seed(0)
    pos, batch = hard_batch(3)
    x = torch.randn(len(pos), 8)
    module, run = make(name, 3)
    module.eval()
    out = run(x, pos, batch)
    order = torch.randperm(len(pos))  # clouds interleaved, too
    other = run(x[order], pos[order], batch[order])
    assert torch.allclose(out[order], other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', NAMES)
def test_other_points_than_the_neighbors_do_not_matter(name):
    r"""NaN in one cloud stays there: not even zero times it reaches others."""
    pos, batch = hard_batch(3)
    x = torch.randn(len(pos), 8)
    module, run = make(name, 3)
    module.eval()
    clean = run(x, pos, batch)
    spoiled = run(torch.where((batch == 3).unsqueeze(1), torch.nan, x), pos,
                  batch)
    assert torch.allclose(clean[batch != 3], spoiled[batch != 3], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(clouds(most=150, dtypes=(torch.float32, ),
              shapes=('normal', 'clustered', 'lattice', 'duplicates', 'line',
                      'offset')),
       st.sampled_from(NAMES))
def test_anything_goes(cloud: Clouds, name):
    r"""Finite outputs and gradients for whatever clouds, empty ones too."""
    pos = cloud.pos.clone().requires_grad_()
    module, run = make(name, pos.size(1))
    x = torch.randn(len(pos), 8, requires_grad=True)
    for training in (True, False):
        module.train(training)
        out = run(x, pos, cloud.batch)
        assert out.size(0) == len(pos) and out.isfinite().all()
        grads = torch.autograd.grad(out.square().sum(),
                                    [x, pos, *module.parameters()],
                                    allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in grads)
