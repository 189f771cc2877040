from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.nn import GCNConv, global_add_pool

from tests.clouds import make_pos
from torch_geometric_erwin import ErwinTransformer, knn_graph
from torch_geometric_erwin.nn import FrameAveraging

GROUPS = {'O': 1, 'SO': 2}  # and how much fewer frames there are
TOL = {torch.float32: 1e-5, torch.float64: 1e-10}


class Net(torch.nn.Module):
    r"""Mixes features and positions, and what a cloud's points say."""
    def __init__(self, in_channels: int, out_channels: int,
                 dim: int = 3) -> None:
        super().__init__()
        self.lin1 = torch.nn.Linear(in_channels + dim, 16)
        self.lin2 = torch.nn.Linear(16, out_channels)

    def reset_parameters(self) -> None:
        self.lin1.reset_parameters()
        self.lin2.reset_parameters()

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor,
                edge_index: Tensor | None = None,
                edge_weight: Tensor | None = None,
                scale: float = 1.) -> Tensor:
        h = self.lin1(torch.cat([x, scale * pos], dim=1)).tanh()
        size = int(batch.max()) + 1 if len(batch) else 0
        total = h.new_zeros(size, 16).index_add(0, batch, h)
        h = h + total[batch].sin()
        if edge_index is not None:
            message = h[edge_index[0]] * (1 if edge_weight is None else
                                          edge_weight.unsqueeze(1))
            h = h + torch.zeros_like(h).index_add(0, edge_index[1], message)
        return self.lin2(h)


def erwin(in_channels: int, out_channels: int, dim: int) -> torch.nn.Module:
    model = ErwinTransformer(in_channels, [8, 8], out_channels, dim=dim,
                             depths=1, heads=2, ball_sizes=[8, 4],
                             strides=(2, ), mp_steps=1, k=4)
    for parameter in model.parameters():  # weights that show mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def generic(sizes: list[int], dim: int, dtype: torch.dtype) -> tuple[
        Tensor, Tensor]:
    r"""Clouds of different variances along all axes, turned at random, and
    points in a mess.
    """
    clouds = []
    for size in sizes:
        pos = torch.randn(size, dim, dtype=torch.float64)
        if size > 1:
            pos = pos - pos.mean(0)
            u, s, v = torch.linalg.svd(pos, full_matrices=False)
            width = torch.arange(len(s), 0, -1).double()
            pos = u * (width * size**0.5) @ v
        clouds.append(pos + torch.randn(dim))
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    mess = torch.randperm(len(batch))
    return torch.cat(clouds).to(dtype)[mess], batch[mess]


def orthogonal(dim: int, proper: bool) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))
    if proper and torch.linalg.det(q) < 0:
        q[0] = -q[0]
    return q


def close(one: Tensor, other: Tensor, tol: float | None = None) -> bool:
    tol = TOL[one.dtype] if tol is None else tol
    scale = max(1., float(other.detach().abs().max())) if other.numel() else 1.
    return one.shape == other.shape and bool(
        ((one - other).abs() <= tol * scale).all())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    dim=st.integers(2, 4),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    group=st.sampled_from(['O', 'SO']),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    make=st.sampled_from([Net, erwin]),
    loop=st.booleans(),
)
def test_equivariance(seed, dim, sizes, group, dtype, make, loop):
    torch.manual_seed(seed)
    # Axes of fewer points than these are not unique.
    pos, batch = generic([s if s == 1 else max(s, dim) for s in sizes], dim,
                         dtype)
    model = FrameAveraging(make(3 + 2 * dim, 4 + dim, dim), dim, in_vectors=2,
                           out_vectors=1, group=group, loop=loop).to(dtype)
    single = torch.bincount(batch)[batch] == 1
    x = torch.randn(len(pos), 3, dtype=dtype)
    vec = torch.randn(len(pos), dim, 2, dtype=dtype)
    vec[single] = 0.  # alone, they have no axes
    out, out_vec = model(x, vec, pos=pos, batch=batch)
    assert out.shape == (len(pos), 4) and out_vec.shape == (len(pos), dim, 1)
    q = orthogonal(dim, proper=group == 'SO').to(dtype)
    perm = torch.randperm(len(pos))
    turned, turned_vec = model(x[perm], (q @ vec)[perm], batch=batch[perm],
                               pos=(pos @ q.T + 0.1)[perm])
    assert close(turned, out[perm])
    assert close(turned_vec, (q @ out_vec)[perm])


def cases() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    pos, batch = generic([5, 9, 1, 7], 3, torch.float64)
    return torch.randn(len(pos), 2).double(), pos, batch


def test_mirrors():
    r"""Turns alone leave a difference between a cloud and its image."""
    x, pos, batch = cases()
    net = Net(2, 3).double()
    image = pos * torch.tensor([1., 1., -1.])
    for group, same in (('O', True), ('SO', False)):
        model = FrameAveraging(net, group=group)
        assert close(model(x, pos=pos, batch=batch),
                     model(x, pos=image, batch=batch)) is same


def test_by_hand():
    r"""The formula, cloud by cloud and frame by frame."""
    x, pos, batch = cases()
    net = Net(2 + 3, 2 + 6).double()
    vec = torch.randn(len(pos), 3, 1).double()
    model = FrameAveraging(net, in_vectors=1, out_vectors=2)
    out, out_vec = model(x, vec, pos=pos, batch=batch)
    for cloud in (0, 1, 3):
        at = batch == cloud
        offset = pos[at] - pos[at].mean(0)
        _, axes = torch.linalg.eigh(offset.T @ offset)
        scalars, vectors = [], []
        for sign in torch.cartesian_prod(*[torch.tensor([1., -1.])] * 3):
            u = axes * sign
            seen = torch.cat([x[at], (u.T @ vec[at]).flatten(1)], 1)
            y = net(seen, offset @ u, batch[at] * 0)
            scalars.append(y[:, :2])
            vectors.append(u @ y[:, 2:].view(-1, 3, 2))
        assert close(out[at], torch.stack(scalars).mean(0))
        assert close(out_vec[at], torch.stack(vectors).mean(0))


@pytest.mark.parametrize('group', GROUPS)
def test_calls(group):
    r"""One call on all frames, one for each, or one on one of them."""
    x, pos, batch = cases()
    net, calls = Net(2, 3).double(), []
    net.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(kwargs['pos']), with_kwargs=True)
    frames = 8 // GROUPS[group]
    one = FrameAveraging(net, group=group)
    out = one(x, pos=pos, batch=batch)
    assert [len(pos) for pos in calls] == [frames * len(pos)]
    calls.clear()
    loop = FrameAveraging(net, group=group, loop=True)
    assert close(loop(x, pos=pos, batch=batch), out)
    assert [len(pos) for pos in calls] == frames * [len(pos)]
    calls.clear()
    drawn = FrameAveraging(net, group=group, frames='random')
    drawn(x, pos=pos, batch=batch)
    assert [len(pos) for pos in calls] == [len(pos)]
    drawn.eval()
    assert torch.equal(drawn(x, pos=pos, batch=batch), out)


@pytest.mark.parametrize('group', GROUPS)
def test_random_frames(group):
    r"""Each draw is the result in one of the frames, which turn along, and
    their mean is what is averaged.
    """
    x, pos, batch = cases()
    net = Net(2, 1 + 3).double()
    model = FrameAveraging(net, out_vectors=1, group=group, frames='random')
    q = orthogonal(3, proper=group == 'SO')

    def draws(pos: Tensor, back: Tensor) -> dict[int, set]:
        found: dict[int, set] = {cloud: set() for cloud in range(4)}
        for _ in range(120):
            out, vec = model(x, pos=pos, batch=batch)
            rows = torch.cat([out, (back @ vec).squeeze(2)], 1)
            for cloud, values in found.items():
                part = rows[batch == cloud].mul(1e5).round().long()
                values.add(tuple(part.flatten().tolist()))
        return found

    def near(one: tuple, other: tuple) -> bool:
        return all(abs(a - b) <= 1 for a, b in zip(one, other, strict=True))

    found = draws(pos, torch.eye(3).double())
    turned = draws(pos @ q.T, q.T)
    out, vec = model.eval()(x, pos=pos, batch=batch)
    for cloud in (0, 1, 3):
        frames = 8 // GROUPS[group]
        assert len(found[cloud]) == len(turned[cloud]) == frames
        for draw in turned[cloud]:
            assert any(near(draw, other) for other in found[cloud])
        mean = torch.tensor([*found[cloud]]).double().mean(0) / 1e5
        at = batch == cloud
        every = torch.cat([out[at], vec[at].squeeze(2)], 1).flatten()
        assert torch.allclose(mean, every, atol=1e-5)


def test_clouds_do_not_mix():
    x, pos, batch = cases()
    model = FrameAveraging(Net(2, 3 + 3).double(), out_vectors=1)
    outs = model(x, pos=pos, batch=batch)
    for cloud in range(4):
        at = batch == cloud
        for out, alone in zip(outs, model(x[at], pos=pos[at]), strict=True):
            assert close(alone, out[at])


def test_arguments_of_the_model():
    x, pos, batch = cases()
    edge_index = knn_graph(pos, 2, batch)
    weight = torch.rand(edge_index.size(1)).double()
    net = Net(2, 3).double()
    kwargs = {'edge_index': edge_index, 'edge_weight': weight, 'scale': 0.5}
    one = FrameAveraging(net)(x, pos=pos, batch=batch, **kwargs)
    loop = FrameAveraging(net, loop=True)(x, pos=pos, batch=batch, **kwargs)
    assert close(one, loop)
    assert not close(one, FrameAveraging(net)(x, pos=pos, batch=batch))
    at = batch == 1
    inner = at[edge_index[0]]
    place = at.cumsum(0) - 1
    alone = FrameAveraging(net)(x[at], None, place[edge_index[:, inner]],
                                pos=pos[at], edge_weight=weight[inner],
                                scale=0.5)
    assert close(alone, one[at])


@pytest.mark.parametrize('loop', [False, True])
def test_one_row_per_cloud(loop):
    r"""In the frame of the cloud, in batches with empty clouds, too."""
    x, pos, batch = cases()
    batch = batch + (batch > 1)
    net, q = Net(2, 1 + 6).double(), orthogonal(3, proper=False)

    def pool(x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return global_add_pool(net(x, pos, batch), batch).tanh()

    model = FrameAveraging(pool, out_vectors=2, loop=loop, per_cloud=True)
    out, vec = model(x, pos=pos, batch=batch)
    assert out.shape == (5, 1) and vec.shape == (5, 3, 2)
    turned, turned_vec = model(x, pos=pos @ q.T, batch=batch)
    assert close(turned, out) and close(turned_vec, q @ vec)
    for cloud in (0, 1, 3, 4):
        at = batch == cloud
        assert close(model(x[at], pos=pos[at])[1], vec[cloud:cloud + 1])


class Atoms(torch.nn.Module):
    r"""Takes numbers instead of features, or nothing, and one more."""
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 4)
        self.conv = GCNConv(4, 4)

    def forward(self, z: Tensor | None, pos: Tensor, batch: Tensor,
                charge: Tensor) -> Tensor:
        h = pos.square() if z is None else pos * self.embedding(z)[:, :3]
        return h.exp() * charge.unsqueeze(1)


def test_other_features():
    _, pos, batch = cases()
    model = FrameAveraging(Atoms().double())
    z = torch.arange(len(pos)) % 5
    charge = torch.rand(len(pos)).double()
    q = orthogonal(3, proper=False)
    for x in (z, None):
        run = partial(model, x, batch=batch, charge=charge)
        assert close(run(pos=pos @ q.T), run(pos=pos))
    vec = torch.randn(len(pos), 3, 2).double()
    vec[batch == 2] = 0.  # alone, it has no axes
    only = FrameAveraging(Net(6, 3).double(), in_vectors=2)
    assert close(only(None, q @ vec, pos=pos @ q.T, batch=batch),
                 only(None, vec, pos=pos, batch=batch))


def energy(model: torch.nn.Module, x: Tensor, batch: Tensor,
           pos: Tensor) -> Tensor:
    return model(x, pos=pos, batch=batch).square().sum()


@pytest.mark.parametrize('group', GROUPS)
def test_forces(group):
    torch.manual_seed(0)
    pos, batch = generic([4, 5], 3, torch.float64)
    x = torch.randn(len(pos), 1).double()
    model = FrameAveraging(Net(1, 1).double(), group=group)
    of_pos = partial(energy, model, x, batch)
    free = pos.clone().requires_grad_()
    assert gradcheck(of_pos, (free, ))
    assert gradgradcheck(of_pos, (free, ))
    force, = torch.autograd.grad(of_pos(free), free)
    for cloud in (0, 1):  # nothing moves or turns by itself
        part, place = force[batch == cloud], pos[batch == cloud]
        assert part.sum(0).abs().max() < 1e-10 * part.abs().max()
        torque = torch.linalg.cross(place - place.mean(0), part).sum(0)
        assert torque.abs().max() < 1e-10 * part.abs().max()


def test_forces_of_the_transformer():
    torch.manual_seed(0)
    pos, batch = generic([20, 31], 3, torch.float64)
    x, q = torch.randn(len(pos), 1).double(), orthogonal(3, proper=False)
    model = FrameAveraging(erwin(1, 1, 3).double())
    forces = []
    for place in (pos, pos @ q.T):
        free = place.clone().requires_grad_()
        forces += torch.autograd.grad(energy(model, x, batch, free), free)
    assert forces[0].abs().max() > 1e-3
    assert close(forces[1], forces[0] @ q.T)
    torque = torch.linalg.cross(pos[batch == 0], forces[0][batch == 0])
    assert torque.sum(0).abs().max() < 1e-10


def test_forces_of_vectors_and_random_frames():
    torch.manual_seed(0)
    pos, batch = generic([4, 5], 3, torch.float64)
    vec = torch.randn(len(pos), 3, 1).double().requires_grad_()
    model = FrameAveraging(Net(3, 3).double(), in_vectors=1, out_vectors=1,
                           frames='random')

    def run(pos: Tensor, vec: Tensor) -> Tensor:
        torch.manual_seed(1)
        return model(None, vec, pos=pos, batch=batch)[1]

    assert gradcheck(run, (pos.requires_grad_(), vec))


CUBE = torch.cartesian_prod(*[torch.tensor([0., 1.])] * 3)
DEGENERATE = {
    'alone': torch.ones(1, 3),
    'pair': torch.tensor([[0., 0., 0.], [1., 0.3, 2.]]),
    'line': torch.linspace(0, 1, 6).view(-1, 1) * torch.tensor([1., 2., -.4]),
    'axis': torch.linspace(0, 1, 6).view(-1, 1) * torch.tensor([0., 2., 0.]),
    'same': torch.full((4, 3), 0.1),
    'plane': torch.randn(6, 3) * torch.tensor([1., 1., 0.]),
    'square': CUBE[:4],
    'cube': CUBE,
    'turned cube': CUBE.double() @ torch.linalg.matrix_exp(torch.tensor(
        [[0., 1., 2.], [-1., 0., 3.], [-2., -3., 0.]]).double()),
    'tetrahedron': CUBE[[0, 3, 5, 6]],
}


@pytest.mark.parametrize('dtype', TOL)
@pytest.mark.parametrize('shape', DEGENERATE)
def test_degenerate_clouds(shape, dtype):
    r"""All is finite, also derivatives, and does not depend on the order."""
    torch.manual_seed(0)
    pos = DEGENERATE[shape].to(dtype).requires_grad_()
    model = FrameAveraging(Net(2, 1 + 3).to(dtype), out_vectors=1)
    x = torch.randn(len(pos), 2, dtype=dtype)
    out, vec = model(x, pos=pos)
    force, = torch.autograd.grad(out.square().sum() + vec.square().sum(), pos,
                                 create_graph=True)
    second, = torch.autograd.grad(force.square().sum(), pos)
    for value in (out, vec, force, second):
        assert value.isfinite().all()
    assert force.sum(0).abs().max() < 1e-3 * (1 + force.abs().max())
    for _ in range(10):
        perm = torch.randperm(len(pos))
        mixed, mixed_vec = model(x[perm], pos=pos[perm])
        assert close(mixed, out[perm], 10 * TOL[dtype])
        assert close(mixed_vec, vec[perm], 10 * TOL[dtype])


@pytest.mark.parametrize('group', GROUPS)
@pytest.mark.parametrize('shape', ['alone', 'pair', 'line', 'axis', 'same'])
def test_lines_turn(shape, group):
    r"""What is perpendicular to a line averages out."""
    torch.manual_seed(0)
    pos = DEGENERATE[shape].double()
    model = FrameAveraging(Net(2, 1 + 3).double(), out_vectors=1, group=group)
    x = torch.randn(len(pos), 2).double()
    out, vec = model(x, pos=pos)
    q = orthogonal(3, proper=group == 'SO')
    turned, turned_vec = model(x, pos=pos @ q.T)
    # The line is as straight as positions are precise.
    assert close(turned, out, 1e-6) and close(turned_vec, q @ vec, 1e-6)


@settings(max_examples=15, deadline=None)
@given(shape=st.sampled_from(['clustered', 'lattice', 'duplicates', 'line',
                              'tiny', 'offset']),
       dim=st.integers(1, 4), seed=st.integers(0, 2**31),
       sizes=st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_finite(shape, dim, seed, sizes):
    pos = make_pos(shape, sum(sizes), dim, seed, torch.float32)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    model = FrameAveraging(erwin(2, 2 + dim, dim), dim, out_vectors=1)
    pos.requires_grad_()
    out, vec = model(torch.ones(len(pos), 2), pos=pos, batch=batch)
    (out.sum() + vec.sum()).backward()
    assert out.shape == (len(pos), 2) and vec.shape == (len(pos), dim, 1)
    assert out.isfinite().all() and vec.isfinite().all()
    assert pos.grad.isfinite().all()


@pytest.mark.parametrize('loop', [False, True])
@pytest.mark.parametrize('group', GROUPS)
def test_no_points(group, loop):
    model = FrameAveraging(Net(2, 1 + 3), out_vectors=1, group=group,
                           loop=loop)
    empty = torch.zeros(0, dtype=torch.long)
    for batch in (None, empty):
        out, vec = model(torch.randn(0, 2), pos=torch.randn(0, 3),
                         batch=batch)
        assert out.shape == (0, 1) and vec.shape == (0, 3, 1)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    r"""Axes and turns are as precise as single precision has them."""
    torch.manual_seed(0)
    pos, batch = generic([6, 9], 3, torch.float32)
    pos, x = pos.to(dtype), torch.randn(15, 2).to(dtype)
    model = FrameAveraging(Net(2, 1 + 3).to(dtype), out_vectors=1)
    out, vec = model(x, pos=pos, batch=batch)
    assert out.dtype == vec.dtype == dtype
    exact = model.float()(x.float(), pos=pos.float(), batch=batch)
    for one, other in zip((out, vec), exact, strict=True):
        assert torch.allclose(one.float(), other, atol=0.05)


@pytest.mark.parametrize('loop', [False, True])
def test_large_outputs_in_half_precision(loop):
    r"""Means do not overflow, whatever the strides of the output."""
    def large(x: None, pos: Tensor, batch: Tensor) -> Tensor:
        return torch.full((2, len(pos)), 6e4, dtype=torch.float16).T

    out = FrameAveraging(large, loop=loop)(None, pos=POS.half())
    assert torch.allclose(out.float(), torch.tensor(6e4), rtol=1e-2)


def test_autocast():
    x, pos, batch = cases()
    seen = []

    def see(x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        seen.append(pos)
        return pos

    model = FrameAveraging(see)
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            model(x, pos=pos.float(), batch=batch)
    assert torch.equal(*seen) and seen[0].dtype == torch.float32


def test_batch_norm():
    r"""Sees all frames of all clouds at once."""
    x, pos, batch = cases()
    net = ErwinTransformer(2, [8, 8], 3, depths=1, heads=2, ball_sizes=8,
                           strides=(2, ), mp_steps=1, k=4).double()
    model, q = FrameAveraging(net), orthogonal(3, proper=False)
    assert close(model(x, pos=pos @ q.T, batch=batch),
                 model(x, pos=pos, batch=batch), 1e-9)


def test_state_and_reset():
    net = Net(2, 3)
    model = FrameAveraging(net)
    assert set(model.state_dict()) == {f'model.{name}'
                                       for name in net.state_dict()}
    other = FrameAveraging(Net(2, 3), group='SO', frames='random')
    other.load_state_dict(model.state_dict())
    model.reset_parameters()
    before = net.lin1.weight.clone()
    model.reset_parameters()
    assert not torch.equal(before, net.lin1.weight)
    FrameAveraging(lambda x, pos, batch: pos).reset_parameters()
    assert str(FrameAveraging(GCNConv(2, 3), 2, group='SO')) == (
        "FrameAveraging(GCNConv(2, 3), dim=2, group='SO', frames='all')")


@pytest.mark.parametrize('kwargs, name', [
    ({'dim': 0}, 'dim'),
    ({'in_vectors': -1}, 'in_vectors'),
    ({'out_vectors': 1.5}, 'out_vectors'),
    ({'group': 'E'}, 'group'),
    ({'frames': 'one'}, 'frames'),
    ({'model': 3}, 'model'),
])
def test_wrong_settings(kwargs, name):
    with pytest.raises(ValueError, match=rf"Expected '{name}'.*\(got "):
        FrameAveraging(**{'model': Net(2, 3), **kwargs})


POS, EDGES = torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])


@pytest.mark.parametrize('kwargs, name', [
    ({'x': torch.randn(5, 2)}, "'x'"),
    ({'x': torch.randn(4)}, "'x'"),
    ({'x': torch.randn(4, 2).double()}, "'x'"),
    ({'vec': None}, "'vec'"),
    ({'vec': torch.randn(4, 3, 2)}, "'vec'"),
    ({'vec': torch.ones(4, 3, 1).long()}, "'vec'"),
    ({'pos': torch.randn(4, 2)}, "'pos'"),
    ({'pos': torch.randn(4)}, "'pos'"),
    ({'pos': torch.full((4, 3), torch.nan)}, "'pos'"),
    ({'pos': torch.full((4, 3), 1e20)}, "'pos'"),
    ({'batch': torch.zeros(3, dtype=torch.long)}, "'batch'"),
    ({'edge_index': EDGES[0]}, "'edge_index'"),
    ({'edge_weight': torch.ones(3)}, "'edge_weight'"),
    ({'edge_index': EDGES, 'edge_weight': torch.ones(4)}, "'edge_weight'"),
    ({'scale': torch.ones(3)}, "'scale'"),
    ({'box': 1.}, "no 'box'"),
    ({'pbc': True}, "no 'pbc'"),
    ({'edge_index': EDGES, 'edge_shift': torch.zeros(3, 3)},
     "no 'edge_shift'"),
    ({'tree': 'oak'}, "no 'tree'"),
    ({'ptr': torch.tensor([0, 4])}, "no 'ptr'"),
])
def test_wrong_inputs(kwargs, name):
    model = FrameAveraging(Net(2 + 3, 3), in_vectors=1)
    given_too = {'x': torch.randn(4, 2), 'vec': torch.randn(4, 3, 1),
                 'pos': POS}
    with pytest.raises(ValueError, match=rf'Expected {name}.*\(got '):
        model(**{**given_too, **kwargs})


@pytest.mark.parametrize('out', [
    torch.randn(4, 3), torch.randn(32), torch.randn(32, 2),
    torch.ones(32, 3).long(), (torch.randn(32, 3), None),
])
def test_wrong_outputs(out):
    model = FrameAveraging(lambda x, pos, batch: out, out_vectors=1)
    with pytest.raises(ValueError, match=r"Expected 'model'.*\(got "):
        model(None, pos=POS)
    model.per_cloud = True
    with pytest.raises(ValueError, match=r"per cloud.*\(got "):
        model(None, pos=POS)
    with pytest.raises(ValueError, match="Expected no 'vec'"):
        model(None, torch.randn(4, 3, 1), pos=POS)
