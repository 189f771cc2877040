r"""What layers are told reaches where it has to."""

import pytest
import torch
from torch_geometric.nn import GCNConv

from torch_geometric_erwin import (
    BallPooling,
    BallTree,
    BallUnpooling,
    EquivariantBallAttention,
    EquivariantBallPooling,
    EquivariantBallUnpooling,
    EquivariantErwinConv,
    EquivariantErwinTransformer,
    EquivariantMPNNConv,
    ErwinConv,
    ErwinGPSConv,
    ErwinTransformer,
)
from torch_geometric_erwin.nn import MPNNConv
from torch_geometric_erwin.nn.conv.swiglu import SwiGLU

MAKERS = {
    'gps': lambda: ErwinGPSConv(8, GCNConv(8, 8), 2),
    'conv': lambda: ErwinConv(4, 8, 2),
    'mpnn': lambda: MPNNConv(8),
    'pool': lambda: BallPooling(4, 8, 2),
    'unpool': lambda: BallUnpooling(8, 4, 2),
    'model': lambda: ErwinTransformer(3, 8, 2, depths=1, heads=2,
                                      ball_sizes=8, strides=(2, )),
    'equivariant attention': lambda: EquivariantBallAttention(8, 2),
    'equivariant conv': lambda: EquivariantErwinConv(4, 8, 2),
    'equivariant mpnn': lambda: EquivariantMPNNConv(8),
    'equivariant pool': lambda: EquivariantBallPooling(4, 8, 2),
    'equivariant unpool': lambda: EquivariantBallUnpooling(8, 4, 2),
    'equivariant model': lambda: EquivariantErwinTransformer(
        3, 8, 2, in_vectors=1, out_vectors=1, depths=1, heads=2, ball_sizes=8,
        strides=(2, )),
}


@pytest.mark.parametrize('name', MAKERS)
def test_reset_reaches_all_parameters(name):
    module = MAKERS[name]()
    for value in module.state_dict().values():
        value.fill_(7)
    module.reset_parameters()
    left = [key for key, value in module.state_dict().items()
            if (value == 7).any()]
    assert not left


def test_model_passes_its_arguments_on():
    model = ErwinTransformer(
        3, 8, depths=1, heads=2, ball_sizes=8, strides=(2, ), mlp_ratio=3,
        mp_steps=2, dim=2, k=5, basis='bessel', num_basis=6, cutoff=0.7,
        bias='squared', signed=True, dropout=0.3, norm='layer_norm',
        norm_kwargs={'eps': 0.1}, ckpt_grad=True)
    assert model.embedding.k == 5 and model.embedding.ckpt_grad
    assert len(model.embedding.convs) == 2
    for conv in model.embedding.convs:
        assert conv.dim == 2 and conv.basis.cutoff == 0.7
        assert conv.lin_edge.in_features == 6
    for stage in [*model.encoder, *model.decoder]:
        assert stage.ckpt_grad
        for block in stage.blocks:
            attn = block.attn
            assert (attn.dim, attn.bias, attn.signed) == (2, 'squared', True)
            assert attn.dropout == block.mlp.dropout == 0.3
            assert block.mlp.hidden_channels == 24
    for layer in [*model.pools, *model.unpools]:
        assert layer.dim == 2 and layer.norm.module.eps == 0.1


def test_model_minds_whether_trees_are_periodic():
    pos, x = torch.rand(20, 3), torch.randn(20, 3)
    for periodic, box in ((True, None), (False, 1.)):
        model = ErwinTransformer(3, 8, depths=1, heads=2, ball_sizes=8,
                                 periodic=periodic)
        with pytest.raises(ValueError, match=r"Expected a .*periodic"):
            model(x, pos=pos, box=box)
        model(x, pos=pos, box=1. if periodic else None)


def test_dropout_in_both_branches_of_gps():
    torch.manual_seed(0)
    pos, x = torch.rand(60, 3), torch.randn(60, 8)
    tree = BallTree.build(pos, ball_size=16)
    edge_index = tree.edge_index()
    layer = ErwinGPSConv(8, GCNConv(8, 8), 2, norm=None, dropout=0.5)
    torch.nn.init.zeros_(layer.mlp[3].weight)
    torch.nn.init.zeros_(layer.mlp[3].bias)
    weight = layer.attn.lin_out.weight.detach().clone()
    torch.nn.init.zeros_(layer.attn.lin_out.weight)
    local = layer(x, edge_index, tree) - 2 * x  # no attention
    layer.attn.lin_out.weight.data, layer.conv = weight, None
    for change in (local, layer(x, edge_index, tree) - x):
        assert 0.4 < (change.abs() < 1e-6).float().mean() < 0.6
    change = layer.eval()(x, edge_index, tree) - x
    assert (change.abs() < 1e-6).float().mean() < 0.1


def test_dropout_of_the_feed_forward_network():
    torch.manual_seed(0)
    mlp, x = SwiGLU(8, 16, 0.5), torch.randn(5, 8)
    assert not torch.equal(mlp(x), mlp(x))
    gate, value = mlp.lin_in(x).chunk(2, dim=1)
    expected = mlp.lin_out(torch.nn.functional.silu(gate) * value)
    assert torch.allclose(mlp.eval()(x), expected)
