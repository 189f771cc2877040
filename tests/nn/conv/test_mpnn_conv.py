import pytest
import torch
from scipy.special import spherical_jn

from tests.nn.hard import hard_batch
from torch_geometric_erwin import BallTree, knn_graph, radius_graph
from torch_geometric_erwin.nn import BesselBasis, MPNNConv


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
