import pytest
import torch
from scipy.special import spherical_jn
from torch_geometric import EdgeIndex

from tests.nn.hard import hard_batch
from torch_geometric_erwin import BallTree, knn_graph, radius_graph
from torch_geometric_erwin.nn import BesselBasis, MPNNConv
from torch_geometric_erwin.nn.conv.messages import is_fused


@pytest.mark.parametrize('basis', ['position', 'bessel'])
@pytest.mark.parametrize('box', [None, 2.])
def test_by_hand(basis, box):
    torch.manual_seed(0)
    pos, batch = hard_batch(sizes=[1, 5, 20])
    tree = BallTree.build(pos, batch, ball_size=16, box=box)
    edge_index = knn_graph(pos, 3, batch, box=box)
    conv = MPNNConv(4, basis=basis, num_basis=5, cutoff=1.5)
    x, out = torch.randn(len(pos), 4), []
    weight = torch.cat([conv.lin_src.weight, conv.lin_dst.weight,
                        conv.lin_edge.weight], dim=1)
    for i in range(len(pos)):
        messages = [torch.zeros(4)]
        for j in edge_index[0][edge_index[1] == i].tolist():
            edge = tree.pos[j] - tree.pos[i]
            if box is not None:
                edge = edge - box * (edge / box).round()
            told = edge if basis == 'position' else conv.basis(edge.norm())
            h = weight @ torch.cat([x[j], x[i], told]) + conv.lin_src.bias
            messages.append(conv.norm_message(conv.act(h)))
        mean = torch.stack(messages).sum(0) / max(len(messages) - 1, 1)
        update = conv.lin_update(torch.cat([x[i], mean]))
        out.append(x[i] + conv.norm_update(update))
    assert torch.allclose(conv(x, edge_index, tree), torch.stack(out),
                          atol=1e-5)


def test_bessel_basis():
    dist = torch.linspace(0, 3, 301, dtype=torch.float64, requires_grad=True)
    basis = BesselBasis(4, 2.)
    out = basis(dist)
    x = dist.detach() / 2
    smooth = (1 - 28 * x**6 + 48 * x**7 - 21 * x**8) * (x < 1)
    for n in range(4):
        # j_0(z) = sin(z) / z
        k = (n + 1) * torch.pi / 2
        wave = torch.from_numpy(spherical_jn(0, k * dist.detach().numpy()))
        assert torch.allclose(out[:, n], smooth * wave * k, atol=1e-10)
    assert (out[dist >= 2] == 0).all()
    first, = torch.autograd.grad(out.sum(), dist, create_graph=True)
    second, = torch.autograd.grad(first.sum(), dist)
    for grad in (first, second):  # ends smoothly, twice
        assert grad.isfinite().all()
        assert grad[199].abs() < 0.1 and (grad[200:] == 0).all()
    assert str(basis) == 'BesselBasis(4, cutoff=2.0)'


def test_bessel_basis_does_not_see_rotations():
    torch.manual_seed(0)
    pos, batch = hard_batch(sizes=[50])
    turn = torch.linalg.qr(torch.randn(3, 3))[0]
    conv, x = MPNNConv(4, basis='bessel', cutoff=1.), torch.randn(50, 4)
    edge_index = radius_graph(pos, 1., batch)
    out = conv(x, edge_index, BallTree.build(pos, ball_size=16))
    other = conv(x, edge_index, BallTree.build(pos @ turn, ball_size=16))
    assert torch.allclose(out, other, atol=1e-5)


@pytest.mark.parametrize('kwargs, name', [
    ({'channels': 0}, 'channels'),
    ({'basis': 'fourier'}, 'basis'),
    ({'basis': 'bessel'}, 'cutoff'),
    ({'basis': 'bessel', 'cutoff': -1.}, 'cutoff'),
    ({'basis': 'bessel', 'cutoff': 1., 'num_basis': 0}, 'num_basis'),
])
def test_bad_arguments(kwargs, name):
    with pytest.raises(ValueError, match=f"Expected '{name}' to .*got"):
        MPNNConv(**{'channels': 4, **kwargs})


def test_bad_input():
    pos, _ = hard_batch(sizes=[50])
    tree = BallTree.build(pos, ball_size=16)
    conv, x = MPNNConv(4), torch.randn(50, 4)
    with pytest.raises(ValueError, match=r"Expected 'edge_index' to .*got"):
        conv(x, torch.rand(2, 5), tree)
    with pytest.raises(ValueError, match=r"Expected 'tree' to .*got"):
        conv(x, knn_graph(pos, 3), pos)
    with pytest.raises(ValueError, match=r"Expected 'x' to .*got"):
        conv(x[1:], knn_graph(pos, 3), tree)


class EdgeByEdge(MPNNConv):
    r"""Whose messages somebody else may have written."""
    def message(self, src_j, dst_i, edge):
        return super().message(src_j, dst_i, edge)


def hybrid_problem(n: int = 60, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    pos, batch = torch.rand(n, 3), torch.arange(n) // (n // 2)
    tree = BallTree.build(pos, batch, ball_size=8)
    edge_index = knn_graph(pos, 5, batch)[:, torch.randperm(5 * n)]
    return torch.randn(n, 8).to(dtype).requires_grad_(), edge_index, tree


def gradients(conv: MPNNConv, x: torch.Tensor, *args: object) -> list:
    out = conv(x, *args)
    torch.manual_seed(1)
    return [out, *torch.autograd.grad(out, [x, *conv.parameters()],
                                      torch.randn_like(out))]


@pytest.mark.parametrize('aggr', ['mean', 'sum', 'add', 'max', 'std'])
@pytest.mark.parametrize('edge_dim', [None, 2])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_edge_by_edge(aggr, edge_dim, dtype):
    r"""It is the same."""
    x, edge_index, tree = hybrid_problem(dtype=dtype)
    edge_attr = None if edge_dim is None else torch.randn(
        edge_index.size(1), edge_dim, dtype=dtype)
    kwargs = {'aggr': aggr, 'edge_dim': edge_dim}
    conv, other = MPNNConv(8, **kwargs).to(dtype), EdgeByEdge(8, **kwargs)
    other.to(dtype).load_state_dict(conv.state_dict())
    assert not is_fused(other, MPNNConv)
    assert is_fused(conv, MPNNConv) == (aggr in ('mean', 'sum', 'add'))
    args = edge_index, tree, None, edge_attr
    for a, b in zip(gradients(conv, x, *args), gradients(other, x, *args),
                    strict=True):
        assert (a - b).abs().max() <= 1e-5 * (1 + b.abs().max())


def test_whoever_looks_sees_messages():
    x, edge_index, tree = hybrid_problem()
    conv = MPNNConv(8)
    expected = conv(x, edge_index, tree)
    seen = []

    def look(*args):
        seen.append(args[-1])

    for register in (
            conv.register_message_forward_hook,
            conv.register_propagate_forward_hook,
            conv.register_aggregate_forward_hook,
            conv.act.register_forward_hook,
            conv.lin_edge.register_forward_hook,
            conv.norm_message.register_forward_pre_hook,
            torch.nn.modules.module.register_module_forward_hook):
        handle = register(look)
        out = conv(x, edge_index, tree)
        handle.remove()
        assert seen and torch.allclose(out, expected, atol=1e-6)
        seen.clear()
    conv(x, edge_index, tree)
    assert not seen and is_fused(conv, MPNNConv)


@pytest.mark.parametrize('change', [
    lambda conv: setattr(conv, 'act', torch.nn.GELU('tanh')),
    lambda conv: setattr(conv, 'act', torch.nn.ReLU()),
    lambda conv: setattr(conv, 'norm_message', torch.nn.Identity()),
    lambda conv: setattr(conv, 'norm_message', torch.nn.LayerNorm(
        8, elementwise_affine=False)),
    lambda conv: torch.nn.utils.parametrizations.weight_norm(conv.lin_edge),
    lambda conv: setattr(conv, 'flow', 'target_to_source')])
def test_changed_layers(change):
    r"""Are computed as they are now, edge by edge."""
    x, edge_index, tree = hybrid_problem()
    conv, other = MPNNConv(8), EdgeByEdge(8)
    for layer in (conv, other):
        change(layer)
    other.load_state_dict(conv.state_dict())
    assert torch.equal(conv(x, edge_index, tree), other(x, edge_index, tree))


def test_message_of_an_instance():
    x, edge_index, tree = hybrid_problem()
    conv = MPNNConv(8)
    before = conv(x, edge_index, tree)
    conv.message = lambda src_j, dst_i, edge: src_j
    assert not is_fused(conv, MPNNConv)
    assert not torch.allclose(conv(x, edge_index, tree), before)


def test_layer_norm_without_bias():
    x, edge_index, tree = hybrid_problem()
    conv, other = MPNNConv(8), EdgeByEdge(8)
    for layer in (conv, other):
        layer.norm_message = torch.nn.LayerNorm(8, bias=False)
    other.load_state_dict(conv.state_dict())
    assert is_fused(conv, MPNNConv)
    assert torch.allclose(conv(x, edge_index, tree),
                          other(x, edge_index, tree), atol=1e-6)


@pytest.mark.parametrize('kind', [MPNNConv, EdgeByEdge])
def test_shared_edges(kind):
    r"""Also of PyG's kind, and sorted or not."""
    x, edge_index, tree = hybrid_problem()
    conv = kind(8)
    expected = conv(x, edge_index, tree)
    some = EdgeIndex(edge_index, sparse_size=(60, 60))
    for edges in (tree.edges(edge_index), some, tree.edges(some)):
        assert torch.allclose(conv(x, edges, tree), expected, atol=1e-6)
    for order in ('row', 'col'):
        edges, _ = some.sort_by(order)
        assert torch.allclose(conv(x, edges, tree), expected, atol=1e-6)


@pytest.mark.parametrize('kind', [MPNNConv, EdgeByEdge])
@pytest.mark.parametrize('box', [None, 1.])
def test_bipartite(kind, box):
    torch.manual_seed(0)
    atoms, beads = torch.rand(50, 3), torch.rand(7, 3)
    trees = [BallTree.build(pos, ball_size=8, box=box)
             for pos in (atoms, beads)]
    edge_index = torch.stack([torch.arange(50), torch.randint(7, (50, ))])
    x = torch.randn(50, 8), torch.randn(7, 8)
    conv = kind(8)
    out = conv(x, edge_index, tuple(trees), size=(50, 7))
    assert out.shape == (7, 8)
    both = BallTree.build(torch.cat([atoms, beads]), ball_size=8, box=box)
    shift = torch.tensor([[0], [50]])
    whole = conv(torch.cat(x), edge_index + shift, both)
    assert torch.allclose(out, whole[50:], atol=1e-5)
    shared = trees[1].edges(edge_index, source=trees[0])
    assert torch.allclose(conv(x, shared, tuple(trees)), out, atol=1e-6)


def test_bad_edges_and_pairs():
    x, edge_index, tree = hybrid_problem()
    conv = MPNNConv(8, edge_dim=2)
    attr = torch.randn(300, 2)
    periodic = BallTree.build(tree.pos, ball_size=8, box=1.)
    other = BallTree.build(torch.rand(70, 3), ball_size=8).edges(edge_index)
    for name, args in {
        'edge_attr': (x, edge_index, tree),
        r'\[num_edges, edge_dim\]': (x, edge_index, tree, None, attr[:5]),
        "'size'": (x, edge_index, tree, None, attr, (60, 50)),
        'pairs': ((x, x), edge_index, tree, None, attr),
        r"'x\[1\]'": ((x, x[:3]), edge_index, (tree, tree), None, attr),
        'same periodic': ((x, x), edge_index, (tree, periodic), None, attr),
        'edge_shift': (x, tree.edges(edge_index), tree,
                       torch.zeros(300, 3), attr),
        'sources': (x, edge_index + 1, tree, None, attr),
        '300 edges between 60 sources and 60': (x, other, tree, None, attr),
    }.items():
        with pytest.raises(ValueError, match=name):
            conv(*args)
    with pytest.raises(ValueError, match='edge_attr'):
        MPNNConv(8)(x, edge_index, tree, None, attr)
    with pytest.raises(ValueError, match='aggr'):
        MPNNConv(8, aggr=['mean', 'sum'])
    with pytest.raises(ValueError, match='edge_dim'):
        MPNNConv(8, edge_dim=0)
