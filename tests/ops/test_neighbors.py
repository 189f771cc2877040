import functools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from torch_geometric_erwin.ops import neighbors as op
from torch_geometric_erwin.ops.native import library
from torch_geometric_erwin.ops.neighbors import cpu, reference, search
from torch_geometric_erwin.ops.neighbors.cells import Cells

native = pytest.mark.skipif(library() is None, reason='no C++ kernels')


def split(points, order, leaf_ptr, a, b):
    """A builder of its own: halves leaves at the widest axis' median."""
    if b - a <= 1:
        return
    middle = a + (b - a) // 2
    rows = slice(leaf_ptr[a], leaf_ptr[b])
    block = points[order[rows]]
    axis = (block / 2).max(0) - (block / 2).min(0)
    by_axis = np.argsort(block[:, axis.argmax()], kind='stable')
    order[rows] = order[rows][by_axis]
    split(points, order, leaf_ptr, a, middle)
    split(points, order, leaf_ptr, middle, b)


def plant(pos, batch, num_clouds, leaf_size, compact=True):
    """Tree order, rows of the leaves and leaves of the clouds."""
    orders, leaf_ptr, cloud_leaf = [], [0], [0]
    for cloud in range(num_clouds):
        order = (batch == cloud).nonzero()[:, 0].numpy()
        n, leaves = len(order), -(-len(order) // leaf_size)
        ptr = [n * i // max(leaves, 1) for i in range(leaves + 1)]
        if compact:
            split(pos.numpy(), order, ptr, 0, leaves)
        orders.append(torch.from_numpy(order))
        leaf_ptr += [leaf_ptr[-1] + p for p in ptr[1:]]
        cloud_leaf.append(cloud_leaf[-1] + leaves)
    return (torch.cat(orders), torch.tensor(leaf_ptr),
            torch.tensor(cloud_leaf))


def tree(pos, batch, num_clouds, leaf_size, compact=True):
    id, leaf_ptr, cloud_leaf = plant(pos, batch, num_clouds, leaf_size,
                                     compact)
    return pos[id], leaf_ptr, cloud_leaf, id


def group(query, batch, num_clouds):
    order = batch.argsort(stable=True)
    count = batch.bincount(minlength=num_clouds)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return {'query': query[order], 'query_ptr': ptr, 'query_id': order}


def problem(*args, **kwargs):
    """What the implementations are called with."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (cpu, search):
            patch.setattr(module, 'neighbors', seen.append)
        op.neighbors(*args, **{'shifts': True, **kwargs})
    return seen[0]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def cubes(num_clouds, dim, side):
    return Cells.of_box(torch.full((num_clouds, dim), side))


def shape_points(kind, n, dim, rng):
    lattice = rng.integers(0, 4, (n, dim)).astype(float)
    line = np.linspace(0, 1, max(n, 1))[:n, None] * np.ones(dim)
    return {
        'uniform': lambda: rng.random((n, dim)),
        'normal': lambda: rng.normal(size=(n, dim)),
        'lattice': lambda: lattice,
        'line': lambda: line,
        'same': lambda: np.ones((n, dim)),
        'huge': lambda: rng.normal(size=(n, dim)) * 1e30,
        'tiny': lambda: rng.normal(size=(n, dim)) * 1e-30,
        'mixed': lambda: lattice * 10.**rng.integers(-20, 20, (n, 1)),
    }[kind]()


KINDS = [
    'uniform', 'normal', 'lattice', 'line', 'same', 'huge', 'tiny', 'mixed'
]


@st.composite
def problems(draw):
    """Searches of every sort, small enough for brute force."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    dim, kind = draw(st.integers(1, 5)), draw(st.sampled_from(KINDS))
    size = st.one_of(st.integers(0, 3), st.integers(0, 200),
                     st.integers(0, 600))
    sizes = draw(st.lists(size, min_size=1, max_size=4))
    num_clouds, n, m = len(sizes), sum(sizes), draw(st.integers(0, 100))

    def points(n):
        return torch.from_numpy(shape_points(kind, n, dim, rng)).to(dtype)

    pos, query = points(n), points(m)
    kwargs = draw_limits(draw, pos)
    batch = torch.arange(num_clouds).repeat_interleave(torch.tensor(sizes))
    batch = batch[torch.from_numpy(rng.permutation(n))]
    args = tree(pos, batch, num_clouds, draw(st.integers(1, 40)),
                draw(st.booleans()))
    if draw(st.booleans()):
        return problem(*args, **kwargs, loop=draw(st.booleans()))
    where = torch.from_numpy(rng.integers(0, num_clouds, m))
    return problem(*args, **kwargs, query_row=0,
                   **group(query, where, num_clouds))


def draw_limits(draw, pos):
    size = float(pos.std()) if pos.size(0) > 1 else 1.
    radius = st.sampled_from([0., 1., 2., size / 4, size, 1e-30, 1e30])
    k = st.one_of(st.integers(1, 40), st.integers(1, 700))
    name = draw(st.sampled_from(['k', 'r', 'both']))
    limits = {'k': draw(k), 'r': draw(radius)}
    return limits if name == 'both' else {name: limits[name]}


@native
@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 2))
def test_native_equals_brute_force(given, most):
    assert_same(cpu.neighbors(given, most), reference.neighbors(given))


@st.composite
def lattices(draw, num_clouds, dim, rng):
    """Cells of any shape and handedness, some of them not periodic."""
    box = rng.normal(size=(num_clouds, dim, dim))
    box = np.linalg.qr(box)[0] + draw(st.sampled_from([0., .3, 2.])) * np.tril(
        rng.normal(size=box.shape), -1)
    stretch = draw(st.sampled_from([1., 3., 30.]))
    box *= rng.choice([1., stretch], (num_clouds, dim, 1))
    periodic = rng.random((num_clouds, dim, 1)) < draw(
        st.sampled_from([.5, 1.]))
    return torch.from_numpy(box * periodic)


@st.composite
def periodic_problems(draw):
    """Searches for images, small enough for brute force."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    dim = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(0, 40 if dim < 4 else 8), min_size=1,
                          max_size=3))
    num_clouds, n, m = len(sizes), sum(sizes), draw(st.integers(0, 20))
    box = draw(lattices(num_clouds, dim, rng))
    cells = Cells.of_box(box)
    kind = draw(st.sampled_from(['uniform', 'lattice', 'same']))

    def points(batch):
        at = torch.from_numpy(shape_points(kind, len(batch), dim, rng))
        if kind == 'lattice':  # on faces, too
            at = (at.unsqueeze(1) @ box[batch] / 2).squeeze(1)
        return cells.wrap(at.to(dtype), batch)

    batch = torch.arange(num_clouds).repeat_interleave(torch.tensor(sizes))
    batch = batch[torch.from_numpy(rng.permutation(n))]
    pos, moved = points(batch)
    most = {1: 40., 2: 3., 3: 1.2, 4: .8}[dim]
    limits = {'r': draw(st.floats(0, most)), 'k': draw(st.integers(1, 30))}
    name = draw(st.sampled_from(['r', 'k', 'both']))
    kwargs = limits if name == 'both' else {name: limits[name]}
    kwargs.update(cells=cells, moved=moved,
                  query_row=draw(st.integers(0, 1)))
    args = tree(pos, batch, num_clouds, draw(st.integers(1, 20)))
    if draw(st.booleans()):
        return problem(*args, **kwargs, loop=draw(st.booleans()))
    where = torch.from_numpy(rng.integers(0, num_clouds, m))
    query, moved = points(where)
    return problem(*args, **kwargs, moved_query=moved,
                   **group(query, where, num_clouds))


def brute_force(given):
    r"""The definition, where the images fit into memory."""
    most_numbers = reference.most_numbers

    def few(p, cloud, rows, cols, reach):
        most = most_numbers(p, cloud, rows, cols, reach)
        pairs = (rows.stop - rows.start) * (cols.stop - cols.start)
        assume(pairs * float((2. * most + 1).prod()) < 2e7)
        return most

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, 'most_numbers', few)
        return reference.neighbors(given)


@native
@settings(max_examples=100, deadline=None)
@given(periodic_problems(), st.integers(0, 2))
def test_native_finds_all_images(given, most):
    assert_same(cpu.neighbors(given, most), brute_force(given))


@settings(max_examples=40, deadline=None)
@given(periodic_problems(), st.sampled_from([2**24, 2**14, 2**9]))
def test_search_finds_all_images(given, budget):
    expected = brute_force(given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, 'BUDGET', budget)
        assert_same(search.neighbors(given), expected)


@settings(max_examples=30, deadline=None)
@given(problems(), st.sampled_from([2**24, 2**16, 2**14]))
def test_search_equals_brute_force(given, budget):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, 'BUDGET', budget)
        out = search.neighbors(given)
    assert_same(out, reference.neighbors(given))


implementations = pytest.mark.parametrize('run', [
    pytest.param(cpu.neighbors, marks=native, id='native'),
    pytest.param(search.neighbors, id='search'),
    pytest.param(reference.neighbors, id='reference'),
])


@implementations
def test_by_hand(run):
    pos = torch.tensor([[0.], [1.], [3.], [7.], [0.], [5.]])
    batch = torch.tensor([0, 0, 0, 0, 2, 2])
    args = tree(pos, batch, 3, 2)
    near, _ = run(problem(*args, k=2))
    assert near.tolist() == [[1, 2, 0, 2, 1, 0, 2, 1, 5, 4],
                             [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]]
    near, _ = run(problem(*args, r=2., query_row=0))
    assert near.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    near, _ = run(problem(*args, r=2., k=1, loop=True))
    assert near.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    near, shift = run(problem(*args, k=1, cells=cubes(3, 1, 8.)))
    assert near.tolist() == [[1, 0, 1, 0, 5, 4], [0, 1, 2, 3, 4, 5]]
    assert shift[:, 0].tolist() == [0, 0, 0, 1, -1, 1]
    near, shift = run(problem(*args, r=8., k=2, cells=cubes(3, 1, 8.)))
    assert near[0].tolist() == [1, 3, 0, 2, 1, 0, 0, 1, 5, 5, 4, 4]
    assert shift[:, 0].tolist() == [0, -1, 0, 0, 0, 0, 1, 1, -1, 0, 1, 0]


@implementations
def test_one_atom_has_neighbors(run):
    args = tree(torch.full((1, 2), .5), torch.zeros(1).long(), 1, 4)
    box = torch.tensor([[[1., 0.], [.25, 2.]]])
    near, shift = run(problem(*args, k=5, cells=Cells.of_box(box)))
    assert near.tolist() == [5 * [0]] * 2
    assert shift.tolist() == [[-1, 0], [1, 0], [-2, 0], [2, 0], [0, -1]]
    near, shift = run(problem(*args, r=1.5, loop=True, query_row=0,
                              cells=Cells.of_box(box)))
    assert shift.tolist() == [[0, 0], [1, 0], [-1, 0]]


@pytest.mark.parametrize('run', implementations.args[1][:2])
@pytest.mark.parametrize('sides', [(0., 0.), (1., 1e5), (.05, 1.)])
@pytest.mark.parametrize('n', [3, 60])
def test_needles_and_plates_and_none(run, sides, n):
    """Own images may be much nearer than other points."""
    cells = Cells.of_box(torch.tensor(sides).diag_embed()[None])
    pos = torch.stack([torch.rand(n), torch.arange(n) * 1e5 / n], dim=1)
    batch = torch.zeros(n).long()
    args = tree(cells.wrap(pos, batch)[0], batch, 1, 8)
    given = problem(*args, k=8, cells=cells)
    if sides[1] < 1e5:  # brute force over so many images takes too long
        assert_same(run(given), reference.neighbors(given))
    else:
        assert run(given)[0].tolist() == [torch.arange(n).repeat_interleave(
            8).tolist()] * 2
    most = problem(*args, r=.02, k=10**9, cells=cells)
    assert_same(run(most), run(problem(*args, r=.02, cells=cells)))


@implementations
def test_equal_distances_go_to_smaller_numbers(run):
    args = tree(torch.zeros(100, 2), torch.zeros(100).long(), 1, 8, False)
    near, _ = run(problem(*args, k=3, loop=True))
    assert near[0].view(100, 3).tolist() == 100 * [[0, 1, 2]]
    near, _ = run(problem(*args, k=2))
    assert near[0].view(100, 2)[:3].tolist() == [[1, 2], [0, 2], [0, 1]]


@pytest.mark.parametrize('run', implementations.args[1][:2])
@pytest.mark.parametrize('limits', [
    {'k': 5},
    {'k': 5, 'loop': True},
    {'k': 40, 'r': 0.},
    {'k': 5, 'r': 1.},
    {'k': 5, 'cells': cubes(2, 2, 3.)},
])
def test_many_points_in_one_place(run, limits):
    n = 400 if 'cells' in limits else 4000  # for brute force over images
    pos = torch.tensor([[1., 1.], [1., 0.]])[(torch.rand(n) < 0.1).long()]
    pos[::100] = torch.rand(n // 100, 2)
    args = tree(pos, torch.arange(n) % 2, 2, 8)
    given = problem(*args, **limits)
    assert_same(run(given), reference.neighbors(given))


@pytest.mark.parametrize('run', implementations.args[1][:2])
def test_many_points_as_far_from_other_queries(run):
    args = tree(torch.ones(4000, 3), torch.zeros(4000).long(), 1, 8)
    query = group(torch.rand(500, 3), torch.zeros(500).long(), 1)
    near, _ = run(problem(*args, k=3, **query))
    assert near[0].view(500, 3).tolist() == 500 * [[0, 1, 2]]


@implementations
def test_overflowing_distances_are_found(run):
    pos = torch.tensor([[-3e38, 0.], [3e38, 0.], [0., 3e38], [0., -3e38]])
    args = tree(pos, torch.zeros(4).long(), 1, 2)
    assert run(problem(*args, k=3))[0][0].tolist() == [
        1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2
    ]
    assert run(problem(*args, r=1e30))[0].size(1) == 12
    assert run(problem(*args, r=0.))[0].size(1) == 0


@implementations
@pytest.mark.parametrize('limits', [{'k': 2}, {'r': 1.}])
def test_nothing_to_find(run, limits):
    none = tree(torch.empty(0, 3), torch.empty(0).long(), 2, 4)
    assert run(problem(*none, **limits))[0].shape == (2, 0)
    query = group(torch.rand(5, 3), torch.tensor([0, 0, 1, 1, 1]), 2)
    assert run(problem(*none, **limits, **query))[0].shape == (2, 0)
    zero = torch.zeros(1).long()
    args = problem(torch.empty(0, 3), zero, zero, zero[:0], **limits)
    assert run(args)[0].shape == (2, 0)


@implementations
@pytest.mark.parametrize('dim', [1, 2, 3, 4])
def test_equals_scipy(run, dim):
    spatial = pytest.importorskip('scipy.spatial')
    pos = torch.rand(3000, dim, dtype=torch.float64)
    args = tree(pos, torch.zeros(3000).long(), 1, 16)
    there = spatial.cKDTree(pos.numpy())
    near, _ = run(problem(*args, k=10))
    _, expected = there.query(pos.numpy(), k=11)
    assert near[0].view(-1, 10).tolist() == expected[:, 1:].tolist()
    near, _ = run(problem(*args, r=0.03))
    pairs = there.query_pairs(0.03, output_type='ndarray')
    keys = np.concatenate([pairs @ [1, 3000], pairs @ [3000, 1]])
    assert np.array_equal(np.sort(near[0] + 3000 * near[1]), np.sort(keys))


@native
@pytest.mark.parametrize('limits', [{'k': 300}, {'r': 0.3}, {'k': 8}])
def test_many_threads_and_many_neighbors(limits):
    pos = torch.rand(5000, 3)
    args = tree(pos, torch.arange(5000) % 2, 2, 16)
    given = problem(*args, **limits)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        out = cpu.neighbors(given)
    finally:
        torch.set_num_threads(threads)
    assert_same(out, reference.neighbors(given))


def test_dispatch_returns_what_the_search_returns():
    args = tree(torch.rand(50, 3), torch.zeros(50).long(), 1, 8)
    expected = reference.neighbors(problem(*args, k=4))
    assert_same(op.neighbors(*args, k=4, shifts=True), expected)
    edges, shift = op.neighbors(*args, k=4)
    assert torch.equal(edges, expected[0]) and shift is None


def test_search_runs_in_bounded_memory(monkeypatch):
    """No query chunk holds more distances than the budget allows."""
    monkeypatch.setattr(search, 'BUDGET', 2**16)
    largest = []

    def record(function, a, b, translation):
        out = function(a, b, translation)
        largest.append(out.numel())
        return out

    monkeypatch.setattr(
        search, 'squared_distance',
        functools.partial(record, search.squared_distance))
    args = tree(torch.rand(4000, 2), torch.zeros(4000).long(), 1, 16)
    search.neighbors(problem(*args, k=8))
    assert 0 < max(largest) <= 2**16


def tensors():
    return list(tree(torch.rand(9, 3), torch.zeros(9).long(), 1, 4))


@pytest.mark.parametrize('kwargs, message', [
    ({}, r"Expected 'k' or 'r' to be given \(got neither\)"),
    ({'k': 0}, r"Expected 'k' to be positive \(got 0\)"),
    ({'r': -1.}, r"Expected 'r' not to be negative \(got -1.0\)"),
    ({'r': float('nan')}, r"Expected 'r' not to be negative \(got nan\)"),
    ({'k': 1, 'query': torch.rand(4, 2)},
     r"Expected 'query' to have shape \[M, 3\] \(got \(4, 2\)\)"),
    ({'k': 1, 'query': torch.rand(4, 3).double()},
     r"Expected 'query' to be torch.float32 on cpu \(got torch.float64"),
    ({'k': 1, 'query': torch.rand(4, 3)},
     r"Expected 'query_ptr' to be a one-dimensional int64 tensor \(got None"),
    ({'k': 1, 'cells': cubes(2, 3, 1.)},
     r"Expected 'cells' to have vectors of shape \[1, 3, 3\] \(got \[2,"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        op.neighbors(*tensors(), **kwargs)


@pytest.mark.parametrize('pos, message', [
    (torch.rand(9), r"Expected 'pos' to have shape \[N, D\] with D >= 1"),
    (torch.rand(9, 3).half(), r"Expected 'pos' to be float32 or float64"),
])
def test_bad_points(pos, message):
    with pytest.raises(ValueError, match=message):
        op.neighbors(pos, *tensors()[1:], k=1)


def test_bad_leaves():
    pos, leaf_ptr, cloud_leaf, id = tensors()
    with pytest.raises(ValueError, match=r"Expected 'leaf_ptr' to be a one"):
        op.neighbors(pos, leaf_ptr.int(), cloud_leaf, id, k=1)
