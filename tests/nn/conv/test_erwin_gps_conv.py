import pytest
import torch
from torch_geometric.nn import GATConv, GCNConv, GPSConv

from tests.nn.hard import hard_batch
from torch_geometric_erwin import BallTree, ErwinGPSConv, knn_graph


@pytest.mark.parametrize('norm', ['batch_norm', 'graph_norm', None])
@pytest.mark.parametrize('conv', [True, False])
def test_equals_gps_where_a_ball_holds_the_cloud(norm, conv):
    torch.manual_seed(0)
    pos, batch = hard_batch(sizes=[1, 30, 64])
    tree = BallTree.build(pos, batch, ball_size=64)
    edge_index = knn_graph(pos, 4, batch)
    x = torch.randn(len(pos), 8)
    theirs = GPSConv(8, GCNConv(8, 8) if conv else None, heads=2, norm=norm)
    ours = ErwinGPSConv(8, GCNConv(8, 8) if conv else None, heads=2,
                        norm=norm, bias=None)
    attn = ours.attn
    with torch.no_grad():
        attn.lin_pos.weight.zero_()
        attn.lin_qkv.weight.copy_(theirs.attn.in_proj_weight)
        attn.lin_qkv.bias.copy_(theirs.attn.in_proj_bias)
    attn.lin_out.load_state_dict(theirs.attn.out_proj.state_dict())
    ours.mlp.load_state_dict(theirs.mlp.state_dict())
    if conv:
        ours.conv.load_state_dict(theirs.conv.state_dict())
    assert torch.allclose(ours(x, edge_index, tree),
                          theirs(x, edge_index, batch), atol=1e-5)


def test_by_hand():
    r"""Each norm has its own place."""
    torch.manual_seed(0)
    pos = torch.rand(60, 3)
    tree, edge_index = BallTree.build(pos, ball_size=16), knn_graph(pos, 4)
    x, layer = torch.randn(60, 8), ErwinGPSConv(8, GCNConv(8, 8), 2)
    for name, value in layer.named_parameters():
        if 'norm' in name:
            torch.nn.init.normal_(value)
    local = layer.norm1(layer.conv(x, edge_index) + x, tree)
    h = local + layer.norm2(layer.attn(x, tree) + x, tree)
    expected = layer.norm3(h + layer.mlp(h), tree)
    assert torch.allclose(layer(x, edge_index, tree), expected, atol=1e-5)


def test_partitions_take_turns():
    torch.manual_seed(0)
    pos, _ = hard_batch(sizes=[100])
    tree = BallTree.build(pos, ball_size=16)
    edge_index, x = knn_graph(pos, 4), torch.randn(100, 8)
    layers = [ErwinGPSConv(8, None, 2, partition=i) for i in range(3)]
    for layer in layers:
        layer.load_state_dict(layers[0].state_dict())
    out = [layer(x, edge_index, tree) for layer in layers]
    assert not torch.allclose(out[0], out[1], atol=1e-4)
    assert torch.equal(out[0], out[2])


@pytest.mark.parametrize('heads', [1, 2])
def test_a_stack_sees_all_points(heads):
    r"""By default, layers that follow one another cross borders of balls."""
    torch.manual_seed(0)
    pos = torch.rand(256, 3)
    tree = BallTree.build(pos, ball_size=16)
    x = torch.randn(256, 8, requires_grad=True)

    def seen(**kwargs) -> int:
        out = x
        for _ in range(6):
            layer = ErwinGPSConv(8, None, heads, norm=None, **kwargs)
            out = layer(out, None, tree)
        grad, = torch.autograd.grad(out[0].sum(), x)
        return int(grad.any(1).sum())

    assert seen() == 256
    assert seen(partition=1) == 16


def test_arguments_of_the_local_layer():
    pos, _ = hard_batch(sizes=[50])
    tree = BallTree.build(pos, ball_size=16)
    edge_index, x = knn_graph(pos, 4), torch.randn(50, 8)
    layer = ErwinGPSConv(8, GATConv(8, 8, edge_dim=3), 2, dropout=0.5,
                         act='gelu', attn_kwargs={'dropout': 0.1})
    layer.reset_parameters()
    edge_attr = pos[edge_index[0]] - pos[edge_index[1]]
    out = layer(x, edge_index, tree, edge_attr=edge_attr)
    assert out.shape == (50, 8)
    assert str(layer) == ('ErwinGPSConv(8, conv=GATConv(8, 8, heads=1), '
                          'heads=2)')


def test_bad_input():
    pos, _ = hard_batch(sizes=[50])
    tree = BallTree.build(pos, ball_size=16)
    layer = ErwinGPSConv(8, None, 2)
    with pytest.raises(ValueError, match="Expected 'x' to have 8 channels"):
        layer(torch.randn(50, 7), None, tree)
    with pytest.raises(ValueError, match="Expected 'tree' to be a BallTree"):
        layer(torch.randn(50, 8), None, torch.zeros(50))
    with pytest.raises(ValueError, match="Expected 'heads' to divide"):
        ErwinGPSConv(8, None, 3)
    with pytest.raises(ValueError, match="Expected 'dropout' to be in"):
        ErwinGPSConv(8, None, 2, dropout=1.)
