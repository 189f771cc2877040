import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clouds import Clouds, clouds, level_sizes, make_pos
from torch_geometric_erwin.ops.build_tree import LevelSlots, build_tree
from torch_geometric_erwin.ops.build_tree.counts import count_levels
from torch_geometric_erwin.ops.native import library

native = pytest.mark.skipif(library() is None, reason='no C++ kernels')
ROTATIONS = ([0.], [0., 45.], [10., 40., 70.], [0., 0.])


def tensors(levels: list[LevelSlots]) -> dict[str, torch.Tensor | None]:
    out: dict[str, torch.Tensor | None] = {}
    for i, level in enumerate(levels):
        out[f'{i} ptr'] = level.ptr
        out[f'{i} mask'] = level.mask
        out[f'{i} group'] = level.group
        for j, index in enumerate(level.index):
            out[f'{i} index {j}'] = index
            out[f'{i} inverse {j}'] = level.inverse[j]
    return out


def assert_same(a: list[LevelSlots], b: list[LevelSlots]) -> None:
    other = tensors(b)
    for name, value in tensors(a).items():
        assert (value is None) == (other[name] is None), name
        if value is not None:
            assert torch.equal(value, other[name]), name


def random_box(cloud: Clouds, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(cloud.sizes), cloud.pos.size(1))
    box = torch.rand(shape, generator=generator) + 0.5
    return box.to(cloud.pos.dtype)


@native
@settings(max_examples=500, deadline=None)
@given(clouds(dims=(1, 6)), level_sizes(), st.sampled_from(ROTATIONS),
       st.sampled_from(['balanced', 'perfect']), st.booleans())
def test_cpp_equals_torch(cloud, sizes, rotations, completion, periodic):
    box = None
    pos = cloud.pos
    if periodic:
        box = random_box(cloud, 0)
        pos = torch.remainder(pos, box[cloud.batch])
        pos = torch.where(pos < box[cloud.batch], pos, 0.)
    out = [
        build_tree(pos, cloud.ptr, *sizes, rotations, box=box,
                   completion=completion, backend=backend)
        for backend in ('cpp', 'torch')
    ]
    assert_same(*out)


@native
@pytest.mark.parametrize('shape', ['normal', 'lattice', 'clustered'])
@pytest.mark.parametrize('dim', [1, 3, 7])
def test_large_cloud_and_threads(shape, dim):
    pos = make_pos(shape, 24_000, dim, 0, torch.float32)
    ptr = torch.tensor([0, 20_000, 20_001, 24_000])
    args = (pos, ptr, [64, 128], [4], [0., 45.])
    threads = torch.get_num_threads()
    try:
        outs = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            outs.append(build_tree(*args, backend='cpp'))
    finally:
        torch.set_num_threads(threads)
    assert_same(outs[0], outs[1])
    assert_same(outs[0], outs[2])
    assert_same(outs[0], build_tree(*args, backend='torch'))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=3), level_sizes())
def test_counts(sizes, levels):
    r"""Guarantee 4: as few balls as hold the points, at every level."""
    ball_sizes, strides = levels
    counts = count_levels(np.array(sizes), ball_sizes, strides, False)
    for level, ball_size in zip(counts, ball_sizes, strict=True):
        assert (level.balls == -(-level.points // ball_size)).all()
        virtual = level.balls * ball_size - level.points
        assert (virtual < ball_size).all()


@settings(max_examples=150, deadline=None)
@given(clouds(dims=(1, 3)), level_sizes(),
       st.sampled_from(['balanced', 'perfect']))
def test_levels_fit(cloud, sizes, completion):
    r"""Points, balls and groups are what the counts promise."""
    ball_sizes, strides = sizes
    perfect = completion == 'perfect'
    counts = count_levels(np.array(cloud.sizes), *sizes, perfect)
    levels = build_tree(cloud.pos, cloud.ptr, *sizes, [0., 45.],
                        completion=completion)
    for i, (level, count) in enumerate(zip(levels, counts, strict=True)):
        assert level.ptr.diff().tolist() == count.points.tolist()
        assert level.index[0].numel() == count.num_slots
        mask = level.mask
        if mask is None:
            mask = torch.ones(count.num_slots, dtype=torch.bool)
        fill = mask.view(-1, ball_sizes[i]).sum(1)
        assert (fill > 0).all()
        for index, inverse in zip(level.index, level.inverse, strict=True):
            everyone = torch.arange(count.num_points)
            assert torch.equal(index[mask].sort().values, everyone)
            assert torch.equal(index[inverse], everyone)
            cloud_of = torch.searchsorted(level.ptr, index, right=True)
            balls = cloud_of.view(-1, ball_sizes[i])
            assert (balls == balls[:, :1]).all()  # clouds never mix
        if i == 0 and not perfect:
            for part in fill.split(count.balls.tolist()):
                assert part.numel() == 0 or part.max() - part.min() <= 1
        if i > 0:
            last = levels[i - 1].mask
            groups = counts[i - 1].num_slots // strides[i - 1]
            if last is None:
                last = torch.ones(counts[i - 1].num_slots, dtype=torch.bool)
            filled = last.view(-1, strides[i - 1]).any(1).nonzero().view(-1)
            group = level.group
            if group is None:
                group = torch.arange(groups)
            assert torch.equal(group, filled)


def test_operator():
    pos = torch.rand(50, 3)
    args = (pos, torch.tensor([0, 20, 50]), None, None, [8, 8], [2],
            [0., 45.], [], False, False, 'torch')
    torch.library.opcheck(
        torch.ops.torch_geometric_erwin.build_tree.default, args,
        test_utils=('test_schema', 'test_faketensor'))


@native
def test_compiles_without_graph_break():
    def centers(pos, ptr):
        level = build_tree(pos, ptr, [8], [], [0.])[0]
        return pos[level.index[0]].view(-1, 8, 3).sum(1)

    compiled = torch.compile(centers, fullgraph=True, dynamic=True,
                             backend='eager')
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for size in (40, 64):
            pos, ptr = torch.rand(size, 3), torch.tensor([0, size])
            assert torch.equal(compiled(pos, ptr), centers(pos, ptr))


def test_without_compiled_kernels():
    r"""Without the extension torch does the work, and says so once."""
    code = '''
import importlib.util, warnings
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: (
    None if name.endswith("._C") else find(name, *a))
import torch
from torch_geometric_erwin import BallTree, knn_graph
pos = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    tree = BallTree.build(pos, ball_size=32, strides=(2, ))
    edges = knn_graph(pos, 4)
seen = [w for w in seen if "C++ kernels" in str(w.message)]
print(len(seen), tree.levels[1].index[1].sum().item(), edges.sum().item())
'''
    env = {**os.environ, 'TORCH_GEOMETRIC_ERWIN_NATIVE': '1'}
    out = subprocess.run([sys.executable, '-c', code], env=env, check=True,
                         capture_output=True, text=True).stdout
    from torch_geometric_erwin import BallTree, knn_graph
    pos = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))
    tree = BallTree.build(pos, ball_size=32, strides=(2, ))
    edges = knn_graph(pos, 4)
    want = [1, tree.levels[1].index[1].sum().item(), edges.sum().item()]
    assert [int(x) for x in out.split()] == want
