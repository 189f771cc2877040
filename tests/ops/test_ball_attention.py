import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests.clouds import Clouds, clouds
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.ops.ball_attention import (
    Balls,
    ball_attention,
    chunked,
    flash,
    reference,
)
from torch_geometric_erwin.ops.distance import distance


def balls_of(tree: BallTree, i: int = 0) -> Balls:
    part = tree.partition(i)
    return Balls(tree.ball_size, part.index, part.inverse, part.mask,
                 tree.box_of_ball(i))


def by_hand(query: Tensor, key: Tensor, value: Tensor, pos: Tensor,
            slope: Tensor | None, tree: BallTree, i: int,
            power: int) -> Tensor:
    r"""Ball after ball, point after point."""
    out = torch.empty_like(value)
    ball = tree.partition(i).inverse // tree.ball_size
    for point in range(len(pos)):
        others = ball == ball[point]
        score = torch.einsum('he,nhe->nh', query[point], key[others])
        score = score / query.size(-1)**0.5
        if slope is not None:
            edge = pos[others] - pos[point]
            if tree.box is not None:
                box = tree.box[tree.batch[point]]
                images = edge[:, None] + box * torch.cartesian_prod(
                    *[torch.arange(-1., 2.).to(box)] * len(box)).view(
                        -1, len(box))
                nearest = images.norm(dim=-1).argmin(1)
                edge = images[torch.arange(len(edge)), nearest]
            score = score + slope * edge.norm(dim=1, keepdim=True)**power
        out[point] = torch.einsum('nh,nhe->he', score.softmax(0),
                                  value[others])
    return out


def inputs(num_points: int, heads: int, width: int,
           dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(num_points, heads, width, dtype=dtype,
                        requires_grad=True) for _ in range(3)]


@settings(max_examples=40, deadline=None)
@given(clouds(most=60, shapes=('normal', 'lattice', 'duplicates', 'line'),
              dtypes=(torch.float64, )),
       st.sampled_from(['distance', 'squared', None]), st.booleans(),
       st.sampled_from([4, 16]), st.integers(0, 1))
def test_equals_the_formula(cloud: Clouds, bias, periodic, ball_size, i):
    pos = cloud.pos
    tree = BallTree.build(pos, cloud.batch, ball_size=ball_size,
                          box=3. if periodic else None)
    q, k, v = inputs(len(pos), 2, 3, torch.float64)
    slope = None if bias is None else torch.tensor([-0.7, 0.1]).double()
    out = ball_attention(q, k, v, tree.pos, slope, balls_of(tree, i),
                         bias=bias)
    with torch.no_grad():
        hand = by_hand(q, k, v, tree.pos, slope, tree, i,
                       2 if bias == 'squared' else 1)
    assert torch.allclose(out, hand, atol=1e-9)


@pytest.mark.parametrize('bias, dtype, tolerance', [
    ('squared', torch.float64, 1e-10), ('squared', torch.float32, 1e-5),
    (None, torch.float64, 1e-10), (None, torch.float32, 1e-5),
    (None, torch.bfloat16, 2e-2), (None, torch.float16, 3e-3)])
def test_fused_equals_reference(bias, dtype, tolerance):
    torch.manual_seed(0)
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    pos = torch.randn(500, 3, dtype=precise).requires_grad_()
    batch = torch.arange(4).repeat_interleave(torch.tensor([1, 33, 64, 402]))
    balls = balls_of(BallTree.build(pos, batch, ball_size=64))
    variables = inputs(500, 4, 16, dtype)
    slope = None
    if bias is not None:
        slope = torch.tensor([-1., -0.2, 0., 0.1], dtype=precise)
    assert flash.serves(variables[0], balls, bias)
    out = flash.ball_attention(*variables, pos, slope, balls)
    other = reference.ball_attention(*variables, pos, slope, balls, bias)
    assert out.dtype == dtype
    assert torch.allclose(out, other, atol=tolerance, rtol=tolerance)
    if bias is not None:
        variables.append(pos)
    weight = torch.randn_like(out)
    for a, b in zip(torch.autograd.grad(out, variables, weight),
                    torch.autograd.grad(other, variables, weight),
                    strict=True):
        assert (a - b).abs().max() <= 2 * tolerance * (1 + b.abs().max())


@pytest.mark.parametrize('run', [
    ball_attention, chunked.ball_attention, flash.ball_attention])
@pytest.mark.parametrize('sign', [-1., 1.])
@pytest.mark.parametrize('spread', [1., 1e12, 3e17])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_far_apart(run, sign, spread, dtype):
    r"""Squares are finite, and stay below what hides virtual slots, here
    those of another ball's point.
    """
    torch.manual_seed(0)
    for real in range(1, 9):
        mask = torch.arange(16) < 8 + real
        index = torch.where(mask, torch.arange(16), 0)
        balls = Balls(8, index, torch.arange(8 + real), mask)
        pos = spread * (2 * torch.rand(8 + real, 3, dtype=dtype) - 1)
        rows = [x.detach() for x in inputs(8 + real, 2, 4, dtype)]
        slope = sign * torch.tensor([1., 0.1 / spread**2], dtype=dtype)
        bias = ({} if run is flash.ball_attention else {'bias': 'squared'})
        out = run(*rows, pos, slope, balls, **bias)
        exact = reference.ball_attention(
            *(x.double() for x in rows), pos.double(), slope.double(), balls,
            'squared')
        assert torch.allclose(out.double(), exact, atol=1e-5)


@pytest.mark.parametrize('bias', ['distance', 'squared', None])
@pytest.mark.parametrize('periodic', [False, True])
@pytest.mark.parametrize('scores', [1, 5000, 10**9])
def test_chunks_equal_the_whole(bias, periodic, scores, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setitem(chunked.SCORES, 'cpu', scores)
    pos = torch.rand(300, 3, dtype=torch.float64).requires_grad_()
    batch = torch.arange(5).repeat_interleave(
        torch.tensor([1, 33, 0, 64, 202]))
    tree = BallTree.build(pos, batch, ball_size=32,
                          box=1. if periodic else None)
    slope = None
    if bias is not None:
        slope = torch.tensor([-1., 0.5]).double().requires_grad_()
    args = *inputs(300, 2, 4, torch.float64), tree.pos, slope, balls_of(tree)
    a = chunked.ball_attention(*args, bias)
    b = reference.ball_attention(*args, bias)
    assert torch.allclose(a, b, atol=1e-12)
    variables = [x for x in (*args[:3], pos, slope) if x is not None]
    weight = torch.randn_like(a)
    expected = torch.autograd.grad(b, variables, weight, retain_graph=True,
                                   allow_unused=True)
    for graph in (False, True):
        found = torch.autograd.grad(a, variables, weight, retain_graph=True,
                                    create_graph=graph, allow_unused=True)
        for x, y in zip(found, expected, strict=True):
            assert x is y is None or torch.allclose(x, y, atol=1e-10)


def test_autocast_leaves_the_gradients_of_chunks_alone():
    r"""Also where they are taken within the region."""
    torch.manual_seed(0)
    pos = torch.rand(200, 3, requires_grad=True)
    slope = torch.tensor([-1., 0.5]).requires_grad_()
    rows = inputs(200, 2, 4, torch.float32)
    balls = balls_of(BallTree.build(pos, ball_size=32))
    weight, found = torch.randn(200, 2, 4), []
    for graph in (False, True):
        for enabled in (False, True):
            with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
                out = chunked.ball_attention(*rows, pos, slope, balls,
                                             'distance')
                found.append([out, *torch.autograd.grad(
                    out, [*rows, pos, slope], weight, create_graph=graph)])
    for want, *others in zip(*found, strict=True):
        for x in others:
            assert torch.allclose(x, want, atol=1e-5, rtol=1e-5)


def test_memory_does_not_grow_with_the_scores():
    r"""What is kept for the gradients has the size of the input."""
    pos = torch.rand(4096, 3)
    balls = balls_of(BallTree.build(pos, ball_size=1024))
    kept: list[int] = []

    def note(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        ball_attention(*inputs(4096, 4, 8, torch.float32), pos,
                       torch.full((4, ), -1.).requires_grad_(), balls)
    assert kept and max(kept) == 4096 * 4 * 8


@pytest.mark.parametrize('bias', ['distance', 'squared', None])
@pytest.mark.parametrize('periodic', [False, True])
def test_first_and_second_derivatives(bias, periodic):
    torch.manual_seed(0)
    pos = torch.rand(9, 2, dtype=torch.float64)
    pos[3] = pos[2]  # coincident points
    batch = torch.tensor([0] * 6 + [1] * 2 + [2])
    tree = BallTree.build(pos, batch, ball_size=4,
                          box=1. if periodic else None)
    balls = balls_of(tree, 1)
    slope = torch.tensor([-0.5, 0.3], dtype=torch.float64)
    free = torch.arange(9) != 3  # the distance has a kink where two points
    moved = tree.pos[free].clone()  # meet, so they move together

    def run(q: Tensor, k: Tensor, v: Tensor, pos: Tensor,
            slope: Tensor) -> Tensor:
        pos = torch.cat([pos[:3], pos[2:3], pos[3:]])
        return ball_attention(q, k, v, pos, None if bias is None else slope,
                              balls, bias=bias)

    variables = [*inputs(9, 2, 2, torch.float64), moved.requires_grad_(),
                 slope.requires_grad_()]
    assert gradcheck(run, variables)
    assert gradgradcheck(run, variables)


@pytest.mark.parametrize('bias', ['distance', 'squared', None])
def test_function_transforms(bias):
    r"""`torch.func` differentiates it, too."""
    torch.manual_seed(0)
    pos = torch.randn(20, 2, dtype=torch.float64)
    balls = balls_of(BallTree.build(pos, ball_size=8))
    q, k, v = inputs(20, 2, 3, torch.float64)
    slope = None if bias is None else torch.tensor([-1., 0.5]).double()

    def energy(q: Tensor, pos: Tensor) -> Tensor:
        out = ball_attention(q, k, v, pos, slope, balls, bias=bias)
        return out.square().sum()

    found = torch.func.grad(energy, argnums=(0, 1))(q, pos)
    expected = torch.autograd.grad(energy(q, pos.requires_grad_()), [q, pos],
                                   allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, torch.zeros_like(a) if b is None else b)


def test_distance_where_it_has_a_kink():
    a = torch.tensor([[0., 1.], [0., 0.]], requires_grad=True)
    far = distance(a, torch.zeros(2, 2))
    assert far.tolist() == [1., 0.]
    grad, = torch.autograd.grad(far.square().sum() + far.sum(), a,
                                create_graph=True)
    assert grad.tolist() == [[0., 3.], [0., 0.]]
    second, = torch.autograd.grad(grad.sum(), a)
    assert second.isfinite().all()


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    pos = torch.zeros(64, 1)
    balls = balls_of(BallTree.build(pos, ball_size=64))
    q = torch.zeros(64, 1, 1)
    out = ball_attention(q, q, torch.ones(64, 1, 1), pos, None, balls,
                         bias=None, dropout=0.5)
    assert out.std() > 0.05
    assert abs(out.mean() - 1) < 0.1


def test_ball_without_points():
    index = torch.tensor([0, 1, 1, 1, 1, 1, 2, 2])
    mask = torch.tensor([True, True, False, False, False, False, True, False])
    pos = torch.randn(3, 2, requires_grad=True)
    tree = BallTree.from_permutation(pos, None, index, mask, ball_size=2)
    q = torch.randn(3, 1, 4, requires_grad=True)
    args = q, q, q, tree.pos, torch.tensor([-1.]), balls_of(tree)
    for out in (ball_attention(*args), chunked.ball_attention(
            *args, 'distance'), reference.ball_attention(*args, 'distance')):
        grads = torch.autograd.grad(out.sum(), [q, pos])
        assert torch.allclose(out[2], q[2])
        assert all(grad.isfinite().all() for grad in grads)
