r"""Trees in lattices, where any directions are periodic, and points move."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from tests.tree.test_permutation import same_levels
from torch_geometric_erwin import BallTree, knn_graph
from torch_geometric_erwin.ops.build_tree import build_tree
from torch_geometric_erwin.ops.periodic import make_cell, nearest_image, wrap
from torch_geometric_erwin.transforms import AddBallTree

OPTIONS = {'ball_size': [8, 8], 'strides': [2]}


def random_box(seed: int, count: int, dim: int, open_share: float = 0.3,
               dtype: torch.dtype = torch.float64) -> torch.Tensor:
    r"""Skewed lattices of either handedness, some with very long vectors and
    some with directions that are not periodic.
    """
    rng = torch.Generator().manual_seed(seed)
    box = torch.randn(count, dim, dim, generator=rng, dtype=torch.float64)
    box += box.sign() * torch.eye(dim)
    box *= 10**torch.rand(count, dim, 1, generator=rng).double()
    for i, j in itertools.permutations(range(dim), 2):
        times = torch.randint(-2, 3, (count, 1), generator=rng)
        box[:, i] += times * box[:, j]
    is_open = torch.rand(count, dim, generator=rng) < open_share
    return torch.where(is_open.unsqueeze(-1), 0., box).to(dtype)


def random_cloud(seed: int, sizes: list[int], dim: int, scale: float = 30.,
                 dtype: torch.dtype = torch.float64):
    rng = torch.Generator().manual_seed(seed)
    pos = scale * torch.randn(sum(sizes), dim, generator=rng,
                              dtype=torch.float64)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return pos.to(dtype), batch, torch.tensor([0, *sizes]).cumsum(0)


cases = given(st.integers(0, 999), st.integers(1, 4),
              st.lists(st.integers(0, 90), min_size=1, max_size=3))


@cases
def test_nearest_images(seed, dim, sizes):
    r"""No translation brings a difference nearer to zero."""
    box = random_box(seed, 1, dim)
    cell = make_cell(box)
    short = cell[0, :dim]
    difference = random_cloud(seed, [50], dim)[0]
    found = nearest_image(difference, cell)
    numbers = (difference - found) @ torch.linalg.pinv(box[0])
    torch.testing.assert_close(numbers.round() @ box[0], difference - found,
                               rtol=0, atol=1e-9)
    steps = torch.tensor([*itertools.product(range(-2, 3), repeat=dim)])
    other = found.unsqueeze(1) - steps.double() @ short
    least = other.norm(dim=2).amin(1)
    torch.testing.assert_close(found.norm(dim=1), least)


@settings(max_examples=50)
@cases
def test_builders_agree(seed, dim, sizes):
    r"""In any lattice, to the last slot."""
    for dtype in (torch.float32, torch.float64):
        pos, batch, ptr = random_cloud(seed, sizes, dim, dtype=dtype)
        cell = make_cell(random_box(seed, len(sizes), dim, dtype=dtype))
        pos = wrap(pos, cell[batch])[0]
        a, b = (build_tree(pos, ptr, [8, 4], [2], [0., 30., 60.], box=cell,
                           backend=backend) for backend in ('cpp', 'torch'))
        for x, y in zip(a, b, strict=True):
            assert all(map(torch.equal, (*x.index, *x.inverse),
                           (*y.index, *y.inverse)))


@settings(max_examples=50)
@cases
def test_offsets_and_children(seed, dim, sizes):
    r"""They sum to zero, are those of images, and those of the cell's own
    frame where nothing was shifted.
    """
    pos, _, ptr = random_cloud(seed, sizes, dim)
    tree = BallTree.build(pos, ptr=ptr, box=random_box(seed, len(sizes), dim),
                          **OPTIONS)
    for _ in range(2):
        assert tree.cell is not None
        mass = torch.ones(tree.num_points) if tree.mass is None else tree.mass
        for i in range(2):
            offset, part = tree.offsets(i), tree.partition(i)
            ball = part.inverse // tree.ball_size
            total = torch.zeros(tree.num_balls, dim).double().index_add_(
                0, ball, offset * mass.unsqueeze(1))
            torch.testing.assert_close(total, torch.zeros_like(total),
                                       rtol=0, atol=1e-9)
            first = part.index[::tree.ball_size][ball]
            apart = (offset - offset[first]) - (tree.pos - tree.pos[first])
            images = nearest_image(apart, tree.cell[tree.batch])
            torch.testing.assert_close(images, torch.zeros_like(images),
                                       rtol=0, atol=1e-9)
            if i == 0:
                torch.testing.assert_close(apart, images, rtol=0, atol=1e-9)
        if tree.num_levels > 1:
            tree = tree.coarsen()


def test_a_ball_as_wide_as_its_cell():
    r"""In the frame in which it was cut, not around the nearest images."""
    pos = torch.rand(500, 2, dtype=torch.float64)
    tree = BallTree.build(pos, ball_size=512, box=1.)
    frame = (pos + 0.5) % 1
    torch.testing.assert_close(tree.offsets(0), pos - pos.mean(0))
    torch.testing.assert_close(tree.offsets(1), frame - frame.mean(0))


@pytest.mark.parametrize('box', [None, [0.9, 1.1]])
@pytest.mark.parametrize('size', [1, 50, 64])
def test_offsets_of_all_orientations(size, box):
    tree = BallTree.build(torch.rand(size, 2), ball_size=16, box=box,
                          strides=[2], rotations=(0., 30., 60.))
    for level in (tree, tree.coarsen(), tree.with_masks()):
        each = torch.stack([level.offsets(i) for i in range(3)])
        assert torch.equal(level.offsets(None), each)


@settings(max_examples=30)
@cases
def test_moving_points(seed, dim, sizes):
    r"""Translations, images of points and small steps of a stored tree keep
    offsets, centers up to lattice vectors, and radii.
    """
    pos, batch, ptr = random_cloud(seed, sizes, dim)
    box = random_box(seed, len(sizes), dim)
    tree = BallTree.build(pos, ptr=ptr, box=box, **OPTIONS)
    rng = torch.Generator().manual_seed(seed)
    numbers = torch.randint(-2, 3, (len(pos), dim), generator=rng).double()
    by = 10 * torch.randn(len(sizes), dim, generator=rng).double()[batch]
    by = by + (numbers.unsqueeze(1) @ box[batch]).squeeze(1)
    moved = tree.with_pos(pos + by).with_pos(pos + 2 * by)
    for i in range(2):
        torch.testing.assert_close(moved.offsets(i), tree.offsets(i),
                                   rtol=0, atol=1e-7)
    torch.testing.assert_close(moved.child_offsets(), tree.child_offsets(),
                               rtol=0, atol=1e-7)
    a, b = tree.coarsen(), moved.coarsen()
    for i in range(2):
        torch.testing.assert_close(b.offsets(i), a.offsets(i), rtol=0,
                                   atol=1e-7)
    for level in range(2):
        torch.testing.assert_close(moved.radii(level), tree.radii(level),
                                   rtol=0, atol=1e-7)
    assert same_levels(tree, moved)


def test_points_may_cross_a_face():
    r"""The reason why trees remember places: a step across the cell's face
    is a step, for the balls in all orientations and the coarse points.
    """
    pos = torch.rand(200, 3, dtype=torch.float64)
    tree = BallTree.build(pos, box=1., ball_size=[16, 8], strides=[4])
    step = 0.02 * torch.rand_like(pos)
    a, b = tree.with_pos(pos + step), tree.with_pos((pos + step) % 1)
    for i in range(2):
        torch.testing.assert_close(a.offsets(i), b.offsets(i))
        change = a.offsets(i) - tree.offsets(i)
        assert change.abs().max() < 0.03
    assert nearest_image(a.coarsen().pos - tree.coarsen().pos,
                         torch.ones(3)).abs().max() < 0.03


def test_gradients_of_cells():
    r"""Derivatives with respect to the strain of a crystal are finite
    differences' (all of what a tree tells of positions).
    """
    torch.manual_seed(0)
    pos = 3 * torch.rand(30, 3, dtype=torch.float64)
    box = torch.eye(3, dtype=torch.float64) + torch.rand(3, 3).double() / 2
    weight = torch.randn(30, 3, dtype=torch.float64)
    tree = BallTree.build(pos, ball_size=[8, 4], strides=[2], box=box)
    edges = tree.knn_graph(3)

    def energy(strain):
        deform = torch.eye(3, dtype=torch.float64) + strain
        moved = BallTree.build(pos @ deform, ball_size=[8, 4], strides=[2],
                               box=box @ deform)
        assert same_levels(moved, tree)
        parts = [moved.offsets(0), moved.offsets(1), moved.child_offsets(),
                 moved.coarsen().offsets(1), moved.edge_vectors(edges)]
        return sum((x * weight[torch.arange(len(x)) % 30].view(
            -1, *[1] * (x.dim() - 2), 3)).square().sum() for x in parts)

    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(energy, strain, eps=1e-7, atol=1e-5)


def test_edge_vectors():
    box = random_box(3, 1, 3, 0.)
    pos = random_cloud(3, [40], 3)[0].requires_grad_()
    tree = BallTree.build(pos, box=box, ball_size=8)
    edge_index = torch.randint(40, (2, 60))
    shift = torch.randint(-2, 3, (60, 3))
    source, target = edge_index
    expected = pos[source] + shift.double() @ box[0] - pos[target]
    torch.testing.assert_close(tree.edge_vectors(edge_index, shift), expected)
    nearest = nearest_image(expected, make_cell(box))
    torch.testing.assert_close(tree.edge_vectors(edge_index), nearest)
    with pytest.raises(ValueError, match="'edge_shift' to be zero"):
        BallTree.build(pos).edge_vectors(edge_index, shift)


@settings(max_examples=30)
@cases
def test_edges_of_a_tree(seed, dim, sizes):
    r"""Neighbors and their shifts are those of the positions as given."""
    pos, batch, ptr = random_cloud(seed, sizes, dim)
    box = random_box(seed, len(sizes), dim)
    tree = BallTree.build(pos, ptr=ptr, box=box, ball_size=8)
    found, shift = tree.knn_graph(3, return_shift=True)
    wanted, exact = knn_graph(pos, 3, batch, box=box, return_shift=True,
                              batch_size=len(sizes))
    assert torch.equal(found, wanted) and torch.equal(shift, exact)
    assert not shift[(box == 0).all(2)[batch[found[1]]]].any()
    source, target = found
    vector = pos[source] - pos[target] + (
        shift.double().unsqueeze(1) @ box[batch[target]]).squeeze(1)
    torch.testing.assert_close(tree.edge_vectors(found, shift), vector,
                               rtol=0, atol=1e-9)


def test_two_clouds_in_two_dimensions_stay_silent():
    r"""What was checked once is not taken for something else again."""
    pos, box = torch.rand(40, 2), torch.tensor([[1., 3.], [3., 1.]])
    items = [AddBallTree(8, box='box')(Data(pos=p, box=b[None]))
             for p, b in zip(pos.split(20), box, strict=True)]
    tree = BallTree.from_data(Batch.from_data_list(items))
    assert torch.equal(tree.box, box)
    tree.knn_graph(4)


def test_rows_for_clouds_and_vectors():
    r"""A square of numbers may be either."""
    pos, batch = torch.rand(30, 3), torch.arange(30) // 10
    lattice = torch.tensor([[2., 1., 1.], [1., 2., 1.], [1., 1., 2.]])
    with pytest.warns(UserWarning, match="the edges of 3 clouds"):
        edges = BallTree.build(pos, batch, box=lattice)
    assert edges.box.shape == (3, 3)
    tree = BallTree.build(pos, batch, box=lattice[None])
    assert tree.box.shape == (3, 3, 3)
    signed = BallTree.build(pos, batch, box=-lattice)
    assert torch.equal(signed.box, -tree.box)
    assert BallTree.build(pos, box=lattice).box.shape == (1, 3, 3)
    same = torch.tensor([[3., 4., 5.]]).expand(3, 3)
    assert BallTree.build(pos, batch, box=same).box.shape == (3, 3)


def test_some_directions():
    pos = torch.rand(50, 3) * 3 - 1
    box = torch.tensor([1., 2., torch.nan])
    tree = BallTree.build(pos, box=box, pbc=(True, True, False))
    assert torch.equal(tree.box[0], torch.diag(torch.tensor([1., 2., 0.])))
    assert torch.equal(tree.pos[:, 2], pos[:, 2])
    assert torch.equal(tree.pos[:, :2], pos[:, :2] % box[:2])
    none = BallTree.build(pos, box=box, pbc=False)
    assert torch.equal(none.pos, pos)
    plain = BallTree.build(pos)
    torch.testing.assert_close(none.offsets(0), plain.offsets(0))



def test_more_slots_than_points_warn():
    batch = torch.arange(2000).repeat_interleave(5)
    pos = torch.rand(10000, 3)
    with pytest.warns(UserWarning, match="'ball_size=8' holds them all"):
        BallTree.build(pos, batch)
    BallTree.build(pos, batch, ball_size=8)
