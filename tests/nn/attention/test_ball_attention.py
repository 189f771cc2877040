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
        other, (edge_index, alpha) = attn(x, tree, i, True)
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


@pytest.mark.parametrize('kind', ['masked', 'coarse', 'periodic'])
@pytest.mark.parametrize('bias', ['distance', None])
@pytest.mark.parametrize('heads, rotations', [
    (4, (0., 45.)), (4, (0., 30., 60.)), (2, (0., 15., 30., 45., 60.)),
    (1, (0., 45.)), (2, (0., ))])
def test_heads_share_the_orientations(heads, rotations, bias, kind):
    r"""Each head does what it does where all attend in its orientation; one
    that has several takes their mean.
    """
    torch.manual_seed(0)
    pos, batch = hard_batch(3, sizes=[1, 70, 40])
    tree = BallTree.build(pos, batch, ball_size=16, strides=(2, ),
                          rotations=rotations,
                          box=3. if kind == 'periodic' else None)
    tree = tree.coarsen() if kind == 'coarse' else tree
    attn = BallAttention(8, heads, bias=bias)
    torch.nn.init.eye_(attn.lin_out.weight)
    x, number = torch.randn(tree.num_points, 8), len(rotations)
    each = torch.stack([attn(x, tree, i).unflatten(1, (heads, -1))
                        for i in range(number)])
    weights = [attn(x, tree, i, True)[1] for i in range(number)]
    out, (edge_index, alpha) = attn(x, tree, None, True)
    by_head = out.unflatten(1, (heads, -1))
    for h in range(heads):
        own = [h * number // heads]
        if heads < number:
            own = [i for i in range(number) if i * heads // number == h]
        assert torch.allclose(by_head[:, h], each[own, :, h].mean(0),
                              atol=1e-6)
        expected = [w[:, h] / len(own) if i in own else 0 * w[:, h]
                    for i, (_, w) in enumerate(weights)]
        assert torch.allclose(alpha[:, h], torch.cat(expected), atol=1e-6)
    assert torch.equal(edge_index, tree.edge_index(None))
    assert torch.allclose(attn(x, tree), out, atol=1e-6)
    assert torch.equal(attn(x, tree), attn(x, tree, None))
    if number == 1:
        assert torch.equal(attn(x, tree), attn(x, tree, 0))


def test_shared_orientations_of_copies():
    torch.manual_seed(0)
    index = torch.cat([torch.randperm(90), torch.randint(90, (38, ))])
    turned = torch.randperm(128)
    tree = BallTree.from_permutation(
        torch.rand(90, 3), None, index, torch.arange(128) < 90, ball_size=16,
        rotated=[turned], virtual='copy')
    attn, x = layer(), torch.randn(90, 16)
    torch.nn.init.eye_(attn.lin_out.weight)
    out, first, second = attn(x, tree), attn(x, tree, 0), attn(x, tree, 1)
    assert torch.allclose(out[:, :8], first[:, :8], atol=1e-5)
    assert torch.allclose(out[:, 8:], second[:, 8:], atol=1e-5)
    assert not torch.allclose(first, second, atol=1e-2)


def test_hooks_of_shared_orientations():
    r"""Messages have all edges, gradients are the same, and what stands in
    for a layer's linear maps is called.
    """
    torch.manual_seed(0)
    pos, batch = hard_batch(3)
    tree, attn, calls = BallTree.build(pos, batch, ball_size=16), layer(), []
    x = torch.randn(len(pos), 16)
    found = []
    for step in range(3):
        if step == 1:
            handle = attn.register_message_forward_hook(
                lambda *args: calls.append(args[-1].shape))
        elif step == 2:
            handle.remove()
            attn.lin_qkv.register_forward_hook(
                lambda *args: calls.append('qkv'))
        out = attn(x, tree)
        found.append([out, *torch.autograd.grad(out.square().sum(),
                                                attn.parameters())])
    assert calls == [(tree.edge_index(None).size(1), 4, 4), 'qkv', 'qkv']
    for a, *others in zip(*found, strict=True):
        for b in others:
            assert torch.allclose(a, b, atol=1e-4 * (1 + a.abs().max().item()))


def test_offset_belongs_to_one_orientation():
    tree, attn = BallTree.build(torch.rand(40, 3), ball_size=16), layer()
    x, offset = torch.randn(40, 16), tree.offsets(1)
    assert torch.equal(attn(x, tree, 1, offset=offset), attn(x, tree, 1))
    with pytest.raises(ValueError, match="Expected 'partition' to tell"):
        attn(x, tree, offset=offset)


def test_slopes():
    attn = BallAttention(16, 4)
    assert torch.allclose(attn.slope(), torch.tensor(-1.), atol=0.1)
    with torch.no_grad():  # the sign and the square tell only beside one
        attn.sigma.copy_(torch.tensor([0.5, 2., -3., 0.]))
    assert torch.equal(attn.slope(), torch.tensor([-0.25, -4., -9., 0.]))
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
    _, (edge_index, alpha) = attn(x, tree, 0, True)
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
    _, (_, alpha) = attn(x, tree, 0, True)
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
    _, (_, alpha) = attn(x, tree, 0, True)
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
