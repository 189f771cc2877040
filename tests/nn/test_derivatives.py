r"""First and second derivatives with respect to features, positions and
parameters.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch_geometric.nn import GCNConv

from torch_geometric_erwin import (
    BallAttention,
    BallPooling,
    BallTree,
    BallUnpooling,
    EquivariantBallPooling,
    EquivariantBallUnpooling,
    EquivariantErwinConv,
    EquivariantMPNNConv,
    ErwinConv,
    ErwinGPSConv,
    ErwinTransformer,
)
from torch_geometric_erwin.nn import MPNNConv

EDGES = torch.tensor([[0, 1, 2, 3, 4, 6, 3, 6], [1, 0, 3, 4, 5, 7, 2, 6]])


def cloud(dim: int = 2) -> tuple[Tensor, Tensor]:
    r"""Two clouds; in the second, two pairs of points coincide."""
    torch.manual_seed(0)
    pos = torch.rand(9, dim, dtype=torch.float64)
    return pos, torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 2])


def spread(pos: Tensor) -> Tensor:
    r"""Puts points on points: 5 on 4, and 7 on 6. A distance has no
    derivative where it is zero, so these move together.
    """
    return torch.cat([pos[:5], pos[4:5], pos[5:6], pos[5:6], pos[6:7]])


def vectors(x: Tensor) -> Tensor:
    r"""Some vectors in a plane."""
    return torch.stack([x.sin(), x * x.flip(1)], dim=1)


def flat(out: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten(1) for part in out], dim=1)


def make(name: str, tree: BallTree, bias: str | None) -> tuple[
        torch.nn.Module, Callable[..., Tensor]]:
    coarse = tree.coarsen()
    if name == 'attention':
        return BallAttention(4, 2, dim=2, bias=bias), lambda m, x, t: m(
            x, t, 1)
    if name == 'edges':
        return BallAttention(4, 2, dim=2, bias=bias), lambda m, x, t: m(
            x, t, 1, True)[0]
    if name == 'conv':
        return ErwinConv(4, 2, 1, dim=2, mlp_ratio=1, bias=bias), (
            lambda m, x, t: m(x, t))
    if name == 'pool':
        return BallPooling(4, 2, 2, dim=2), lambda m, x, t: m(x, t)[0]
    if name == 'unpool':
        return BallUnpooling(4, 4, 2, dim=2), lambda m, x, t: m(
            x[:coarse.num_points], t.coarsen(), x, t)
    if name == 'gps':
        return ErwinGPSConv(4, GCNConv(4, 4), 2, dim=2, bias=bias,
                            act='gelu'), lambda m, x, t: m(x, EDGES, t)
    if name in ('mpnn', 'bessel'):
        kwargs = {'basis': 'bessel', 'cutoff': 0.9, 'num_basis': 3}
        return MPNNConv(4, dim=2, **(kwargs if name == 'bessel' else {})), (
            lambda m, x, t: m(x, EDGES, t))
    if name == 'equivariant conv':
        return EquivariantErwinConv(4, 2, dim=2, depth=1, mlp_ratio=1,
                                    bias=bias), (
            lambda m, x, t: flat(m(x, vectors(x), t)))
    if name == 'equivariant mpnn':
        return EquivariantMPNNConv(4, dim=2), lambda m, x, t: flat(m(
            x, vectors(x), t, EDGES))
    if name == 'equivariant pool':
        return EquivariantBallPooling(4, 2, 2, dim=2), lambda m, x, t: flat(
            m(x, vectors(x), t)[:2])
    if name == 'equivariant unpool':
        return EquivariantBallUnpooling(4, 4, 2, dim=2), lambda m, x, t: flat(
            m(x[:coarse.num_points], vectors(x)[:coarse.num_points],
              t.coarsen(), x, vectors(x), t))
    return ErwinTransformer(
        4, [2, 2], dim=2, depths=[2, 1], heads=[1, 1], ball_sizes=[4, 2],
        strides=(2, ), mp_steps=1, bias=bias, mlp_ratio=1), (
            lambda m, x, t: m(x, t, EDGES))


CASES = [(name, bias) for name in ('attention', 'edges', 'conv')
         for bias in ('distance', 'squared', None)]
CASES += [(name, 'distance') for name in ('pool', 'unpool', 'gps', 'mpnn',
                                          'bessel', 'model')]
CASES += [(f'equivariant {name}', 'distance') for name in (
    'conv', 'mpnn', 'pool', 'unpool')]


@pytest.mark.parametrize('box', [None, 1.])
@pytest.mark.parametrize('name, bias', CASES)
def test_derivatives(name, bias, box):
    pos, batch = cloud()
    pos = pos[:7]
    tree = BallTree.build(spread(pos), batch, ball_size=[4, 2], strides=(2, ),
                          box=box)
    module, run = make(name, tree, bias)
    module.double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    names = [n for n, _ in module.named_parameters()]

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor, pos: Tensor) -> Tensor:
            # The same balls, wherever the points are:
            whole = BallTree(spread(pos), tree.batch, tree.levels,
                             box=tree.box)
            return run(self.inner, x, whole)

    wrapped = Wrapped()

    def function(x: Tensor, pos: Tensor, *parameters: Tensor) -> Tensor:
        weights = {f'inner.{n}': p
                   for n, p in zip(names, parameters, strict=True)}
        return functional_call(wrapped, weights, (x, pos))

    inputs = [torch.randn(9, 4, dtype=torch.float64), pos,
              *(p.detach().clone() for p in module.parameters())]
    inputs = [x.requires_grad_() for x in inputs]
    assert gradcheck(function, inputs, fast_mode='equivariant' in name)
    if name in ('attention', 'edges', 'conv', 'pool', 'unpool'):
        assert gradgradcheck(function, inputs)
    else:
        assert gradgradcheck(function, inputs, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize('bias', ['distance', 'squared', None])
def test_training_on_forces(bias):
    r"""Energy, its gradient, a loss on that, and its gradient."""
    torch.manual_seed(0)
    pos = torch.randn(60, 3)
    batch = torch.arange(2).repeat_interleave(30)
    charge = torch.randint(0, 2, (60, 1)).float() * 2 - 1
    target = -pos  # a spring to the origin
    model = ErwinTransformer(1, [16, 32], 1, depths=[2, 2], heads=[2, 4],
                             ball_sizes=[16, 8], strides=(4, ), mp_steps=1,
                             k=4, bias=bias, norm='layer_norm',
                             norm_kwargs={'mode': 'node'})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        free = pos.clone().requires_grad_()
        energy = model(charge, pos=free, batch=batch)
        force, = torch.autograd.grad(-energy.sum(), free, create_graph=True)
        loss = (force - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all()
                   for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_force_on_coincident_points_is_finite():
    pos = torch.zeros(20, 3, requires_grad=True)
    model = ErwinTransformer(1, [8, 8], 1, depths=[2, 2], heads=[2, 2],
                             ball_sizes=[8, 4], strides=(4, ), mp_steps=2,
                             k=4, basis='bessel', cutoff=1.).eval()
    x = torch.randn(20, 1)
    force, = torch.autograd.grad(model(x, pos=pos).sum(), pos,
                                 create_graph=True)
    second = torch.autograd.grad(force.square().sum(),
                                 [pos, *model.parameters()],
                                 allow_unused=True)
    assert force.isfinite().all()
    assert all(g is None or g.isfinite().all() for g in second)


def test_forces_sum_to_zero():
    r"""Nothing depends on where the whole cloud is."""
    torch.manual_seed(0)
    pos = torch.randn(100, 3, dtype=torch.float64, requires_grad=True)
    model = ErwinTransformer(1, [8, 8], 1, depths=[2, 2], heads=[2, 2],
                             ball_sizes=[16, 8], strides=(4, )).double()
    energy = model(torch.ones(100, 1, dtype=torch.float64), pos=pos)
    force, = torch.autograd.grad(energy.sum(), pos)
    assert force.abs().max() > 1e-8
    assert force.sum(0).abs().max() < 1e-9 * force.abs().sum()
