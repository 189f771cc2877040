r"""Layers within the transforms of `torch.func`, on trees built before."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap

from torch_geometric_erwin import (
    BallTree,
    BallUnpooling,
    ErwinGPSConv,
    ErwinTransformer,
)
from torch_geometric_erwin.nn import BallAttention, BallPooling, ErwinConv
from torch_geometric_erwin.nn.conv.mpnn_conv import MPNNConv

LATTICE = [[1., 0., 0.], [0.4, 0.9, 0.], [0.3, -0.2, 0.8]]
jacobian = torch.autograd.functional.jacobian


class Pooling(torch.nn.Module):
    r"""There and back."""
    def __init__(self) -> None:
        super().__init__()
        self.pool = BallPooling(4, 6, 2, norm='layer_norm')
        self.unpool = BallUnpooling(6, 4, 2)

    def forward(self, x: Tensor, tree: BallTree) -> Tensor:
        return self.unpool(*self.pool(x, tree), x, tree)


class WithEdges(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.is_model = isinstance(layer, ErwinTransformer)

    def forward(self, x: Tensor, tree: BallTree) -> Tensor:
        n = tree.num_points
        edges = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
        edges = edges[:, tree.batch[edges[0]] == tree.batch[edges[1]]]
        args = (tree, edges) if self.is_model else (edges, tree)
        return self.layer(x, *args)


LAYERS = {
    'BallAttention': lambda: BallAttention(4, 2),
    'ErwinConv': lambda: ErwinConv(4, 4, 2),
    'pooling': Pooling,
    'MPNNConv': lambda: WithEdges(MPNNConv(4)),
    'ErwinGPSConv': lambda: WithEdges(ErwinGPSConv(4, None, 2)),
    'ErwinTransformer': lambda: WithEdges(ErwinTransformer(
        4, [4, 8], 3, depths=[1, 1], heads=[2, 2], ball_sizes=[4, 4],
        strides=[2], decoder_depths=[1], decoder_heads=[2], mp_steps=1)),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    module = LAYERS[request.param]().eval()  # of batch normalization
    for x in module.parameters():
        if x.dim() == 2:
            torch.nn.init.normal_(x, std=0.4)
    return module


@pytest.fixture(params=['open', 'edges', 'lattice'])
def tree(request):
    torch.manual_seed(0)
    pos = torch.rand(11, 3, dtype=torch.float64)
    box = {'open': None, 'edges': 1., 'lattice': LATTICE}[request.param]
    box = torch.tensor(box) if isinstance(box, list) else box
    batch = torch.tensor([0] * 8 + [1] * 3)
    return BallTree.build(pos, batch, ball_size=[4, 4], strides=[2], box=box)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 2e-3),
                                              (torch.float64, 1e-8)])
def test_transforms(layer, tree, dtype, tolerance):
    layer, tree = layer.to(dtype), tree.apply(
        lambda x: x.to(dtype) if x.is_floating_point() else x)
    x, pos = torch.randn(11, 4, dtype=dtype), tree.pos

    def run(x: Tensor, pos: Tensor) -> Tensor:
        return layer(x, replace(tree, pos=pos))

    def moved(pos: Tensor) -> Tensor:
        return layer(x, tree.with_pos(pos))[7:9]

    def energy(pos: Tensor) -> Tensor:
        return run(x, pos).square().mean()

    def close(a: Tensor, b: Tensor) -> None:
        assert (a - b).abs().max() <= tolerance * (1 + b.abs().max())

    many, places = torch.stack([x, 2 * x]), torch.stack([pos, pos * 1.001])
    close(vmap(run, (0, None))(many, pos),
          torch.stack([run(x, pos) for x in many]))
    close(vmap(moved)(places), torch.stack([moved(pos) for pos in places]))
    expected = jacobian(moved, pos)
    close(jacrev(moved)(pos), expected)
    close(jacfwd(moved)(pos), expected)
    close(jacobian(moved, pos, vectorize=True), expected)
    way = torch.randn_like(pos)
    close(jvp(moved, (pos, ), (way, ))[1], (expected * way).sum((-1, -2)))
    if dtype == torch.float64:
        close(hessian(energy)(pos),
              torch.autograd.functional.hessian(energy, pos))


def test_gradients_of_each_sample():
    r"""With respect to weights, as for differential privacy."""
    torch.manual_seed(0)
    tree = BallTree.build(torch.rand(11, 3), ball_size=4)
    layer, many = ErwinConv(4, 4, 2), torch.randn(3, 11, 4)
    weights = dict(layer.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, weights, (x, tree)).square().mean()

    found = vmap(torch.func.grad(loss), (None, 0))(weights, many)
    for i, x in enumerate(many):
        exact = torch.autograd.grad(loss(weights, x), list(weights.values()))
        for a, b in zip(found.values(), exact, strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-4, atol=1e-6)


def test_positions_that_are_no_numbers_are_seen_in_batches():
    tree = BallTree.build(torch.rand(11, 3), ball_size=4)
    places = torch.stack([tree.pos, tree.pos])
    places[1, 3] = torch.nan
    with pytest.raises(ValueError, match="'pos' to have finite"):
        vmap(lambda pos: tree.with_pos(pos).offsets())(places)
