r"""Neighbours in periodic cells, against brute force and other packages."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from torch_geometric_erwin import (
    BallTree,
    knn,
    knn_graph,
    radius,
    radius_graph,
)


def all_images(x, y, cell, reach):
    r"""Vectors from points of `y` to all images of points of `x` in a cube,
    and the numbers of both and of cells: the definition, in float64.
    """
    dual = np.linalg.pinv(cell)
    apart = np.abs((y[:, None] - x) @ dual).max((0, 1), initial=0)
    most = np.floor(reach * np.linalg.norm(dual, axis=0) + apart + 1e-9)
    most[~cell.any(1)] = 0
    if len(x) * len(y) * np.prod(2 * most + 1) > 2e7:
        reject()  # memory ends
    shifts = np.array([*itertools.product(
        *(np.arange(-n, n + 1) for n in most))])
    vector = (x[None, :, None] + shifts @ cell) - y[:, None, None]
    i, j, s = (index.ravel() for index in np.indices(vector.shape[:3]))
    return vector.reshape(-1, x.shape[1]), i, j, shifts[s].astype(int)


@st.composite
def cells(draw, most=12):
    r"""Some clouds with a lattice each, and points in and out of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, count = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    sizes = rng.integers(0, most + 1 if dim < 4 else 4, count)
    box = np.linalg.qr(rng.normal(size=(count, dim, dim)))[0]
    box += draw(st.sampled_from([0., .4, 1.5])) * np.tril(
        rng.normal(size=box.shape), -1)
    box *= rng.choice([1., draw(st.sampled_from([1., 4., 100.]))],
                      (count, dim, 1) if dim < 4 else (count, 1, 1))
    pbc = rng.random((count, dim)) < draw(st.sampled_from([.5, 1.]))
    batch = rng.permutation(np.repeat(np.arange(count), sizes))
    kind = draw(st.sampled_from(['inside', 'outside', 'faces']))
    at = {'inside': rng.random((len(batch), dim)),
          'outside': rng.normal(size=(len(batch), dim)) * 2,
          'faces': rng.integers(0, 3, (len(batch), dim)) / 2.}[kind]
    pos = np.einsum('nd,nde->ne', at, box[batch])
    return tuple(map(torch.from_numpy, (pos, batch, box, pbc)))


def split(pos, batch, box, pbc):
    r"""Numbers of points and the lattice of each cloud."""
    for cloud in range(len(box)):
        yield ((batch == cloud).nonzero()[:, 0].numpy(),
               np.where(pbc[cloud, :, None], box[cloud], 0.))


def as_set(rows, cols, shifts):
    found = [*zip(rows.tolist(), cols.tolist(), map(tuple, shifts.tolist()),
                  strict=True)]
    assert len(set(found)) == len(found)  # nothing twice
    return set(found)


def lengths(pos, edges, shift, batch, box):
    vector = (pos[edges[0]] - pos[edges[1]] + torch.einsum(
        'ed,edf->ef', shift.double(), box[batch[edges[1]]]))
    return vector.norm(dim=1)


REACH = {1: 4., 2: 3., 3: 1.5, 4: 1.1}


@settings(max_examples=60, deadline=None)
@given(cells(), st.floats(0, 1), st.booleans(), st.booleans())
def test_radius_graph_finds_all_images(cloud, part, loop, forward):
    pos, batch, box, pbc = cloud
    r = part * REACH[pos.size(1)]
    flow = 'source_to_target' if forward else 'target_to_source'
    edges, shift = radius_graph(pos, r, batch, loop, flow=flow, box=box,
                                pbc=pbc, batch_size=len(box),
                                return_shift=True)
    assert shift.dtype == torch.int64 and shift.shape == (
        edges.size(1), pos.size(1))
    length = lengths(pos, edges, shift, batch, box)
    center = edges[1 if forward else 0]
    assert (center.diff() >= 0).all()
    assert (length.diff()[center.diff() == 0] > -1e-9).all()
    found, want, either = as_set(*edges, shift), set(), set()
    for ids, cell in split(*cloud):
        x = pos[ids].numpy()
        vector, i, j, s = all_images(x, x, cell, r)
        far = np.linalg.norm(vector, axis=1)
        if not loop:
            far[(i == j) & ~s.any(1)] = np.inf
        for near, names in ((far < r - 1e-9, want), (far < r + 1e-9, either)):
            names |= as_set(ids[j[near]], ids[i[near]], s[near])
    assert want <= found <= either


@settings(max_examples=60, deadline=None)
@given(cells(most=8), st.integers(1, 12), st.booleans())
def test_knn_graph_finds_nearest_images(cloud, k, loop):
    pos, batch, box, pbc = cloud
    edges, shift = knn_graph(pos, k, batch, loop, box=box, pbc=pbc,
                             batch_size=len(box), return_shift=True)
    as_set(*edges, shift)
    length = lengths(pos, edges, shift, batch, box).numpy()
    assert not shift[~pbc[batch[edges[1]]]].any()
    count = torch.bincount(edges[1], minlength=len(pos)).numpy()
    start = np.cumsum(count) - count
    for ids, cell in split(*cloud):
        x = pos[ids].numpy()
        reach = max(length[np.isin(edges[1], ids)], default=0.)
        vector, i, _, _ = all_images(x, x, cell, reach)
        far = np.linalg.norm(vector, axis=1)
        for n, point in enumerate(ids):
            want = np.sort(far[i == n])[0 if loop else 1:][:k]
            got = length[start[point]:start[point] + count[point]]
            assert len(got) == (k if cell.any() else len(want))
            np.testing.assert_allclose(got, want, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(cells(), st.floats(0, 1), st.integers(1, 9), st.integers(0, 99))
def test_two_clouds(cloud, part, k, seed):
    x, batch, box, pbc = cloud
    rng = np.random.default_rng(seed)
    batch_y = torch.from_numpy(rng.integers(0, len(box), 7))
    y = torch.from_numpy(rng.normal(size=(7, x.size(1))) * 2)
    r = part * REACH[x.size(1)]
    args = {'batch_x': batch, 'batch_y': batch_y, 'batch_size': len(box),
            'box': box, 'pbc': pbc, 'return_shift': True}
    pairs, shift = radius(x, y, r, **args)
    found, want = as_set(*pairs, shift), {}
    for cloud, (ids, cell) in enumerate(split(x, batch, box, pbc)):
        rows = (batch_y == cloud).nonzero()[:, 0].numpy()
        vector, i, j, s = all_images(x[ids].numpy(), y[rows].numpy(), cell, r)
        want |= dict(zip(zip(rows[i].tolist(), ids[j].tolist(), map(
            tuple, s.tolist()), strict=True), np.linalg.norm(vector, axis=1),
            strict=True))
    assert {pair for pair in want if want[pair] < r - 1e-9} <= found
    assert all(want[pair] < r + 1e-9 for pair in found)
    pairs, shift = knn(x, y, k, **args)
    count = torch.bincount(pairs[0], minlength=len(y))
    assert (count[pbc.any(1)[batch_y] & torch.isin(batch_y, batch)] == k).all()


LATTICES = {
    'cubic': np.eye(3) * 2.5,
    'slab': np.diag([2., 3., 5.]),
    'hexagonal': np.array([[2., 0, 0], [-1., 3**.5, 0], [0, 0, 3.3]]),
    'fcc': np.array([[0, 1.7, 1.7], [1.7, 0, 1.7], [1.7, 1.7, 0]]),
    'triclinic': np.array([[3., 0, 0], [1.7, 2.6, 0], [-1.1, .9, 2.2]]),
    'left-handed': np.array([[0, 2., .1], [2.2, 0, -.3], [1.9, .3, 3.]]),
    'very skew': np.array([[1.5, 0, 0], [7.9, 2., 0], [-6.3, 9.1, 2.5]]),
}


@pytest.mark.parametrize('name', LATTICES)
@pytest.mark.parametrize('pbc', [(True, True, True), (True, True, False),
                                 (False, True, False)])
def test_agrees_with_ase(name, pbc):
    ase = pytest.importorskip('ase')
    neighbor_list = pytest.importorskip('ase.neighborlist').neighbor_list
    cell = LATTICES[name]
    pos = np.random.default_rng(0).random((9, 3)) @ cell * 1.3 - .2
    atoms = ase.Atoms('H9', positions=pos, cell=cell, pbc=pbc)
    i, j, shift = neighbor_list('ijS', atoms, 3.1)
    edges, own = radius_graph(torch.from_numpy(pos), 3.1, return_shift=True,
                              box=torch.from_numpy(cell), pbc=pbc)
    assert as_set(*edges.flip(0), own) == as_set(i, j, shift)


@pytest.mark.parametrize('name', LATTICES)
def test_agrees_with_vesin(name):
    vesin = pytest.importorskip('vesin')
    cell = LATTICES[name]
    pos = np.random.default_rng(1).random((30, 3)) @ cell
    search = vesin.NeighborList(cutoff=2.3, full_list=True)
    i, j, shift = search.compute(points=pos, box=cell, periodic=True,
                                 quantities='ijS')
    edges, own = radius_graph(torch.from_numpy(pos), 2.3, return_shift=True,
                              box=torch.from_numpy(cell))
    assert as_set(*edges.flip(0), own) == as_set(i, j, shift)


def test_every_image_is_an_edge():
    pos = torch.rand(20, 3, dtype=torch.float64)
    edges, shift = radius_graph(pos, .7, box=1., return_shift=True)
    x = pos.numpy()
    vector, i, j, s = all_images(x, x, np.eye(3), .7)
    near = np.linalg.norm(vector, axis=1) <= .7
    near &= (i != j) | s.any(1)
    assert edges.size(1) == near.sum() > 360
    assert as_set(*edges, shift) == as_set(j[near], i[near], s[near])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_edges_come_both_ways(dtype):
    box = torch.from_numpy(LATTICES['very skew']).to(dtype)
    pos = torch.randn(300, 3, dtype=dtype) * 20
    edges, shift = radius_graph(pos, .8, box=box, return_shift=True)
    there = as_set(*edges, shift)
    assert len(there) > 300 and there == as_set(*edges.flip(0), -shift)
    back, other = radius_graph(pos, .8, box=box, return_shift=True,
                               flow='target_to_source')
    assert torch.equal(back, edges.flip(0)) and torch.equal(other, -shift)


def test_own_images_count_without_loops():
    edges, shift = radius_graph(torch.zeros(1, 1), 2., box=1.,
                                return_shift=True)
    assert edges.tolist() == [4 * [0]] * 2
    assert shift[:, 0].tolist() == [-1, 1, -2, 2]
    _, shift = radius_graph(torch.zeros(1, 1), 2., box=1., loop=True,
                            max_num_neighbors=2, return_shift=True)
    assert shift[:, 0].tolist() == [0, -1]


def test_points_meet_across_faces():
    pos = torch.tensor([[0., 0.], [2., 1.], [.5, 3.]])  # two in one place
    edges, shift = knn_graph(pos, 1, box=[2., 1.], return_shift=True)
    assert edges.tolist() == [[1, 0, 0], [0, 1, 2]]
    assert shift.tolist() == [[-1, -1], [1, 1], [0, 3]]


def test_no_shift_where_nothing_is_periodic():
    box = torch.tensor([[-.5, -.1, -.8, -.4], [.9, -1., .1, 0.],
                        [1.9, -2.4, 0., -.8], [.3, -2., -.6, .5]])
    pos = torch.rand(2, 4) * 3
    _, shift = knn_graph(pos, 9, box=box, pbc=[True, True, True, False],
                         return_shift=True)
    assert shift[:, :3].any(0).all() and not shift[:, 3].any()


def test_no_box_no_shift():
    pos = torch.rand(30, 2)
    edges, shift = knn_graph(pos, 3, return_shift=True)
    assert torch.equal(edges, knn_graph(pos, 3))
    assert shift.shape == (90, 2) and not shift.any()


def test_trees_find_the_same():
    pos, batch = torch.rand(90, 3), torch.arange(90) // 40
    tree = BallTree.build(pos, batch, ball_size=16, box=[1., .5, 2.])
    want = knn_graph(pos, 5, batch, box=[1., .5, 2.])
    assert torch.equal(tree.knn_graph(5), want)


def test_stress():
    r"""Edges' vectors carry gradients to positions and cells."""
    cell = torch.from_numpy(LATTICES['triclinic'])
    pos = torch.rand(5, 3, dtype=torch.float64) @ cell
    (row, col), shift = radius_graph(pos, 2.9, box=cell, return_shift=True)

    def energy(strain):
        bent = torch.eye(3, dtype=torch.float64) + strain
        vector = (pos @ bent)[row] + shift.double() @ (cell @ bent) - (
            pos @ bent)[col]
        return (-vector.square().sum(1)).exp().sum()

    zero = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(energy, zero)
    full, _ = radius_graph(pos @ (1.01 * torch.eye(3).double()), 2.929,
                           box=1.01 * cell, return_shift=True)
    assert full.size(1) == row.numel()


@pytest.mark.parametrize('call, message', [
    (lambda pos: radius_graph(pos, 1e6, box=1.), "fewer than 2.31 images"),
    (lambda pos: radius_graph(pos, 1., box=1e30), "'box' to have edges betw"),
    (lambda pos: knn_graph(pos, 1, box=1e-30), "'box' to have edges between"),
    (lambda pos: knn_graph(pos * 1e30, 1, box=1., pbc=[True, False]),
     "'pos' to be below 2e.16 in directions that are not periodic"),
    (lambda pos: knn_graph(pos, 1, pbc=True), "'box' to be given with 'pbc'"),
    (lambda pos: knn_graph(pos, 1, box=torch.ones(1, 2, 2)),
     "'box' to have linearly independent"),
])
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(9, 2) + 1)
