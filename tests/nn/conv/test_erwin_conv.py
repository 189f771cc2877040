import pytest
import torch

from tests.nn.hard import hard_batch
from torch_geometric_erwin import BallTree, ErwinConv
from torch_geometric_erwin.nn import ErwinBlock, SwiGLU


def test_orientations_take_turns():
    torch.manual_seed(0)
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=16, rotations=(0., 30., 60.))
    conv, x = ErwinConv(8, 8, 2, depth=5), torch.randn(len(pos), 8)
    out = x
    for block, i in zip(conv.blocks, (0, 1, 2, 0, 1), strict=True):
        out = block(out, tree, i)
    assert torch.allclose(conv(x, tree), out, atol=1e-6)


@pytest.mark.parametrize('partition', [0, 1, 2, 4])
@pytest.mark.parametrize('depth', [1, 2])
def test_begins_with_any_orientation(partition, depth):
    torch.manual_seed(0)
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=16, rotations=(0., 30., 60.))
    conv = ErwinConv(8, 8, 2, depth=depth, partition=partition)
    x = out = torch.randn(len(pos), 8)
    for i, block in enumerate(conv.blocks):
        out = block(out, tree, (partition + i) % 3)
    assert torch.allclose(conv(x, tree), out, atol=1e-6)


def test_rotation_crosses_the_borders_of_balls():
    pos, _ = hard_batch(sizes=[200])
    x = torch.randn(200, 8, requires_grad=True)
    reached = []
    for rotations in ((0., ), (0., 45.)):
        tree = BallTree.build(pos, ball_size=16, rotations=rotations)
        conv = ErwinConv(8, 8, 2)
        for parameter in conv.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        grad, = torch.autograd.grad(conv(x, tree)[0].sum(), x)
        reached.append(int((grad.abs().sum(1) > 0).sum()))
    ball = int((tree.partition(0).inverse // 16 ==
                tree.partition(0).inverse[0] // 16).sum())
    assert reached[0] == ball < reached[1]


def test_block_by_hand():
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=16)
    block, x = ErwinBlock(8, 2), torch.randn(len(pos), 8)
    h = x + block.attn(block.norm1(x), tree, 0)
    assert torch.allclose(block(x, tree), h + block.mlp(block.norm2(h)))
    block.reset_parameters()
    mlp = SwiGLU(4, 6)
    w1, w2 = mlp.lin_in.weight.chunk(2)
    x = torch.randn(3, 4)
    hand = (torch.nn.functional.silu(x @ w1.t()) * (x @ w2.t()))
    assert torch.allclose(mlp(x), hand @ mlp.lin_out.weight.t(), atol=1e-6)
    assert str(mlp) == 'SwiGLU(4, 6)'


def test_channels_repr_and_reset():
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=16)
    conv = ErwinConv(-1, 16, heads=4)
    assert conv(torch.randn(len(pos), 5), tree).shape == (len(pos), 16)
    assert str(conv) == 'ErwinConv(-1, 16, heads=4, depth=2)'
    weight = conv.lin.weight.clone()
    conv.reset_parameters()
    assert not torch.equal(conv.lin.weight, weight)
    assert ErwinConv(16, 16).lin is None
    identity = ErwinConv(16, 16, depth=0)
    x = torch.randn(len(pos), 16)
    assert torch.equal(identity(x, tree), x)


def test_dropout():
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=16)
    conv, x = ErwinConv(8, 8, 2, dropout=0.3), torch.randn(len(pos), 8)
    assert not torch.equal(conv(x, tree), conv(x, tree))
    conv.eval()
    assert torch.equal(conv(x, tree), conv(x, tree))


def test_copies_evolve_apart():
    r"""With virtual='copy' the layer works on slots, as the authors' does."""
    pos = torch.tensor([[0.], [4.], [9.]])
    index = torch.tensor([2, 2, 0, 1])
    mask = torch.tensor([True, False, True, True])
    turned = [torch.tensor([1, 2, 0, 3])]
    tree = BallTree.from_permutation(pos, None, index, mask, ball_size=2,
                                     rotated=turned, virtual='copy')
    conv, x = ErwinConv(4, 4, 2, dim=1), torch.randn(3, 4)
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter)
    slots, way, back = tree.in_slot_order()
    whole = conv(x[way], slots)
    assert torch.allclose(conv(x, tree), whole[back])
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)
    attn = conv.blocks[0].attn
    with pytest.raises(ValueError, match="Expected 'tree' to have virtual"):
        attn(x, tree, return_attention_weights=True)


@pytest.mark.parametrize('kwargs, name', [
    ({'in_channels': 0}, 'in_channels'),
    ({'out_channels': -1}, 'channels'),
    ({'heads': 3}, 'heads'),
    ({'depth': -1}, 'depth'),
    ({'mlp_ratio': 0}, 'mlp_ratio'),
    ({'dim': 0}, 'dim'),
    ({'bias': 'far'}, 'bias'),
    ({'dropout': -0.1}, 'dropout'),
])
def test_bad_arguments(kwargs, name):
    with pytest.raises(ValueError, match=f"Expected '{name}' to .*got"):
        ErwinConv(**{'in_channels': 8, 'out_channels': 8, **kwargs})


def test_bad_input():
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=16)
    conv, x = ErwinConv(8, 8), torch.randn(len(pos), 8)
    for name, args in {'x': (x[1:], tree), 'x ': (x[:, 1:], tree),
                       'tree': (x, None),
                       'tree ': (x, BallTree.build(pos[:, :2], batch))
                       }.items():
        with pytest.raises(ValueError,
                           match=f"Expected '{name.strip()}' to .*got"):
            conv(*args)
