import pytest
import torch

from tests.nn.hard import hard_batch, with_virtual
from torch_geometric_erwin import BallAttention, BallTree


def layer(**kwargs) -> BallAttention:
    torch.manual_seed(0)
    attn = BallAttention(16, 4, **kwargs)
    for parameter in attn.parameters():  # nothing small, nothing zero
        torch.nn.init.normal_(parameter, std=0.5)
    return attn


@pytest.mark.parametrize('bias', ['distance', 'squared', None])
@pytest.mark.parametrize('kind', ['balanced', 'perfect', 'periodic', 'foreign',
                                  'coarse'])
def test_paths_agree(bias, kind):
    torch.manual_seed(0)
    pos, batch = hard_batch(3)
    if kind == 'foreign':
        tree = with_virtual(pos, batch, 16)
    elif kind == 'coarse':
        tree = BallTree.build(pos, batch, ball_size=16, strides=(4, ))
        tree = tree.coarsen()
    else:
        tree = BallTree.build(
            pos, batch, ball_size=32, box=3. if kind == 'periodic' else None,
            completion='perfect' if kind == 'perfect' else 'balanced')
    attn = layer(bias=bias)
    x = torch.randn(tree.num_points, 16, requires_grad=True)
    for i in range(2):
        out = attn(x, tree, i)
        other, (edge_index, alpha) = attn(x, tree, i,
                                          return_attention_weights=True)
        assert torch.allclose(out, other, atol=1e-5)
        assert torch.equal(edge_index, tree.edge_index(i))
        total = torch.zeros(tree.num_points, 4).index_add(
            0, edge_index[1], alpha)
        assert torch.allclose(total, torch.ones_like(total), atol=1e-5)
        inputs = [x, *attn.parameters()]
        for a, b in zip(torch.autograd.grad(out.square().sum(), inputs),
                        torch.autograd.grad(other.square().sum(), inputs),
                        strict=True):
            assert torch.allclose(a, b, atol=1e-4 * (1 + b.abs().max()))


HOOKS = ['propagate_forward_pre', 'propagate_forward', 'message_forward_pre',
         'message_forward', 'aggregate_forward_pre', 'aggregate_forward',
         'edge_update_forward_pre', 'edge_update_forward']


@pytest.mark.parametrize('hook', HOOKS)
def test_hooks_are_called(hook):
    pos, batch = hard_batch(2)
    tree = BallTree.build(pos, batch, ball_size=32)
    attn, x = layer(dim=2), torch.randn(len(pos), 16)
    plain = attn(x, tree, 1)
    calls = []
    register = getattr(attn, f'register_{hook}_hook')
    handle = register(lambda *args: calls.append(args) and None)
    watched = attn(x, tree, 1)
    assert len(calls) == 1
    assert torch.allclose(plain, watched, atol=1e-5)
    handle.remove()
    attn(x, tree, 1)
    assert len(calls) == 1


def test_hook_sees_the_edges_of_all_orientations():
    pos, batch = hard_batch(2)
    tree = BallTree.build(pos, batch, ball_size=32)
    attn, x, seen = layer(dim=2), torch.randn(len(pos), 16), []
    attn.register_message_forward_hook(
        lambda module, args, out: seen.append(args[0]['alpha']))
    for i in range(2):
        _, (_, alpha) = attn(x, tree, i, return_attention_weights=True)
        parts = seen.pop().chunk(2)
        assert torch.equal(parts[i], alpha)
        assert (parts[1 - i] == 0).all()


def test_slopes():
    attn = BallAttention(16, 4)
    assert torch.allclose(attn.slope(), torch.tensor(-1.), atol=0.1)
    assert (attn.slope() < 0).all()
    attn = BallAttention(16, 4, signed=True)
    assert torch.equal(attn.slope(), attn.sigma)
    assert torch.allclose(attn.slope(), torch.tensor(-1.), atol=0.1)
    assert BallAttention(16, 4, bias=None).slope() is None


def test_distance_decides():
    r"""With a steep slope each point sees itself alone."""
    pos = torch.arange(8.).view(-1, 1)
    tree = BallTree.build(pos, ball_size=8)
    attn = BallAttention(4, 1, dim=1)
    torch.nn.init.constant_(attn.sigma, 10.)
    x = torch.randn(8, 4)
    _, (edge_index, alpha) = attn(x, tree, return_attention_weights=True)
    loops = edge_index[0] == edge_index[1]
    assert alpha[loops].min() > 0.999 and alpha[~loops].max() < 1e-3


def test_dropout():
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=32)
    attn, x = layer(dropout=0.5), torch.randn(len(pos), 16)
    assert not torch.equal(attn(x, tree), attn(x, tree))
    attn.eval()
    assert torch.equal(attn(x, tree), attn(x, tree))
    attn.train()
    _, (_, alpha) = attn(x, tree, return_attention_weights=True)
    assert 0.4 < (alpha == 0).float().mean() < 0.6


@pytest.mark.parametrize('bias', ['distance', 'squared', None])
def test_autocast(bias):
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=32)
    attn, x = layer(bias=bias), torch.randn(len(pos), 16)
    precise = attn(x, tree)
    with torch.autocast('cpu', torch.bfloat16):
        fast = attn(x, tree)
        edges, _ = attn(x, tree, return_attention_weights=True)
    assert fast.dtype == torch.bfloat16
    scale = precise.abs().max()
    assert (fast - precise).abs().max() < 0.05 * scale
    assert (edges - precise).abs().max() < 0.05 * scale


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16,
                                   torch.float64])
def test_types_of_features_and_positions_are_free(dtype):
    pos, batch = hard_batch()
    attn, x = layer(), torch.randn(len(pos), 16)
    precise = attn(x, BallTree.build(pos, batch, ball_size=32))
    attn.to(dtype)
    for positions in (pos, pos.double()):
        tree = BallTree.build(positions, batch, ball_size=32)
        out = attn(x.to(dtype), tree)
        assert out.dtype == dtype
        assert (out - precise).abs().max() < 0.05 * precise.abs().max()


def test_repr_and_reset():
    attn = BallAttention(16, 4, bias='squared')
    assert str(attn) == "BallAttention(16, heads=4, dim=3, bias='squared')"
    before = {name: p.clone() for name, p in attn.named_parameters()}
    attn.reset_parameters()
    changed = [name for name, p in attn.named_parameters()
               if not torch.equal(p, before[name])]
    assert set(changed) == {'sigma', 'lin_pos.weight', 'lin_qkv.weight',
                            'lin_out.weight'}


@pytest.mark.parametrize('channels', [8, 64, 256])
def test_scores_do_not_vanish_at_first(channels):
    r"""Narrow or wide, points prefer some to others from the start."""
    torch.manual_seed(0)
    x, heads = torch.randn(64, channels), 4
    tree = BallTree.build(torch.rand(64, 3), ball_size=64)
    attn = BallAttention(channels, heads, bias=None)
    _, (_, alpha) = attn(x, tree, return_attention_weights=True)
    assert 0.3 < alpha.log().std() < 1.5


@pytest.mark.parametrize('kwargs, name', [
    ({'channels': 10, 'heads': 4}, 'heads'),
    ({'channels': 0}, 'channels'),
    ({'channels': 8, 'heads': 0}, 'heads'),
    ({'channels': 8, 'dim': 0}, 'dim'),
    ({'channels': 8, 'bias': 'cubic'}, 'bias'),
    ({'channels': 8, 'dropout': 1.5}, 'dropout'),
])
def test_bad_arguments(kwargs, name):
    with pytest.raises(ValueError, match=f"Expected '{name}' to .*got"):
        BallAttention(**kwargs)


def test_bad_input():
    pos, batch = hard_batch()
    tree = BallTree.build(pos, batch, ball_size=32)
    attn, x = layer(), torch.randn(len(pos), 16)
    for name, args in {
        'tree': (x, tree.edge_index()),
        'x': (x[:-1], tree),
        'x ': (x[:, :-1], tree),
        ' x': (x[0], tree),
        'x  ': (x.long(), tree),
        'tree ': (x, BallTree.build(pos[:, :2], batch)),
        'partition': (x, tree, 2),
        ' partition': (x, tree, -1),
    }.items():
        with pytest.raises(ValueError, match=f"Expected '{name.strip()}' to "
                           ".*got"):
            attn(*args)
