r"""Trees by Triton kernels against those by torch, slot by slot: on a GPU
where there is one, and otherwise in Triton's interpreter.
"""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clouds import clouds, level_sizes, make_pos
from tests.ops.test_build_tree import ROTATIONS, assert_same, random_box
from torch_geometric_erwin.ops import native
from torch_geometric_erwin.ops.build_tree import (
    LevelSlots,
    build_tree,
    eigenvectors,
    register,
    triton,
)
from torch_geometric_erwin.ops.build_tree.counts import (
    count_levels,
    nested_runs,
)
from torch_geometric_erwin.ops.build_tree.layout import (
    Layout,
    _Balls,
    _Nodes,
    ball_phase,
    num_splits,
    tree_phases,
)
from torch_geometric_erwin.ops.build_tree.orientation import orientations

compiler = pytest.importorskip('triton')

GPU = torch.cuda.is_available()
DEVICE = 'cuda' if GPU else 'cpu'
ASSEMBLER = Path(compiler.__file__).parent / 'backends/nvidia/bin/ptxas'


@pytest.fixture(autouse=True, scope='module')
def _quick():
    r"""The interpreter takes as long for many positions as for few."""
    with pytest.MonkeyPatch.context() as monkey:
        if not GPU:
            monkey.setattr(triton, 'WALK', 2048)
        yield


def build(backend, pos, ptr, *args, box=None, **kwargs):
    device = DEVICE if backend == 'triton' else 'cpu'
    box = None if box is None else box.to(device)
    levels = build_tree(pos.to(device), ptr, *args, box=box, backend=backend,
                        **kwargs)
    return [LevelSlots(*(_to_cpu(x) for x in vars(level).values()))
            for level in levels]


def _to_cpu(x):
    if isinstance(x, tuple):
        return tuple(map(_to_cpu, x))
    return None if x is None else x.cpu()


def check(*args, **kwargs):
    assert_same(build('triton', *args, **kwargs),
                build('torch', *args, **kwargs))


@settings(max_examples=500 if GPU else 12, deadline=None)
@given(clouds(700 if GPU else 150, dims=(1, 6)),
       level_sizes(4 if GPU else 3), st.sampled_from(ROTATIONS),
       st.sampled_from(['balanced', 'perfect']), st.booleans(),
       st.sampled_from([(1024, 512, 2**26), (256, 64, 1), (64, 8, 2**26),
                        (64, 1, 1)]))
def test_equals_torch(cloud, sizes, rotations, completion, periodic,
                      constants):
    box, pos = None, cloud.pos
    if periodic:
        box = random_box(cloud, 0)
        pos = torch.remainder(pos, box[cloud.batch])
        pos = torch.where(pos < box[cloud.batch], pos, 0.)
    names = ('BLOCK', 'SMALL', 'NODES')
    with patch.multiple(triton, **dict(zip(names, constants, strict=True))):
        check(pos, cloud.ptr, *sizes, rotations, box=box,
              completion=completion)


@pytest.mark.parametrize('dim, shape', [
    (1, 'duplicates'), (2, 'clustered'), (3, 'normal'), (3, 'lattice'),
    (7, 'huge')])
def test_large(dim, shape):
    n = 100_000 if GPU else 2000
    pos = make_pos(shape, n, dim, 0, torch.float32)
    ptr = torch.tensor([0, n // 2, n // 2 + 1, n])
    check(pos, ptr, [32, 64], [4], [0., 45.])


@pytest.mark.parametrize('completion', ['balanced', 'perfect'])
def test_thousands_of_clouds(completion):
    r"""Some of them empty."""
    sizes = torch.randint(0, 6, (2000, ),
                          generator=torch.Generator().manual_seed(0))
    pos = make_pos('normal', int(sizes.sum()), 2, 0, torch.float64)
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    check(pos, ptr, [2, 4], [2], [0., 30.], completion=completion)


@pytest.mark.parametrize('sizes', [[], [0], [0, 0], [1], [0, 2, 0]])
def test_few_points(sizes):
    pos = torch.arange(2. * sum(sizes)).view(-1, 2)
    check(pos, torch.tensor([0, *sizes]).cumsum(0), [2, 2], [2], [0., 45.])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=3), level_sizes(),
       st.booleans(), st.sampled_from([1, 4, 32, 256, 1024]))
def test_nodes_are_small(sizes, levels, perfect, small):
    r"""After as many splits as they should be; otherwise points are lost."""
    counts = count_levels(np.array(sizes), *levels, perfect)
    for run in nested_runs(counts):
        layout = Layout(run, torch.device('cpu'))
        node = _Nodes(layout)
        for _ in range(triton._large_splits(tree_phases(run), small)):
            node.descend(node.divide())
        assert (node.size <= small).all()
        for i, level in enumerate(run):
            balls = _Balls(layout, i)
            phases = [ball_phase(level)]
            large = triton._large_splits(phases, small)
            for _ in range(large):
                balls.descend(*balls.divide())
            assert large == num_splits(phases) or (balls.size <= small).all()


def test_choice(monkeypatch):
    r"""C++ first, where there is some; then Triton, where it serves."""
    pos = torch.rand(9, 2)
    for cpp in (None, object()):
        for serves in (False, True):
            monkeypatch.setattr(register, 'library', lambda x=cpp: x)
            monkeypatch.setattr(triton, 'serves', lambda pos, x=serves: x)
            want = 'cpp' if cpp else 'triton' if serves else 'torch'
            assert register._choose('auto', pos) == want
            assert register._choose('torch', pos) == 'torch'


def test_without_triton():
    r"""Nothing but the kernels imports it."""
    code = '''
import sys
sys.modules["triton"] = None
import torch
from torch_geometric_erwin.ops.build_tree import build_tree, triton
assert not triton.serves(torch.rand(5, 2))
build_tree(torch.rand(5, 2), torch.tensor([0, 5]), [4], [], [0.])
'''
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('dim', [1, 2, 3, 5])
def test_eigenvectors(dim):
    r"""As PyTorch's operations, whose roots may round otherwise."""
    torch.manual_seed(0)
    x = torch.randn(70, dim, dim, dtype=torch.double)
    x = x @ x.mT
    x = x / x.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    x[0], x[1] = torch.eye(dim) / dim, 0.
    found = eigenvectors.by_triton(x.to(DEVICE))
    for a, b in zip(found, eigenvectors.by_torch(x), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=1e-12)
    assert eigenvectors.trial(torch.device(DEVICE), dim)


@settings(max_examples=50 if GPU else 5, deadline=None)
@given(clouds(500 if GPU else 100, dims=(2, 4),
              shapes=('normal', 'duplicates')))
def test_principal_axes(cloud):
    r"""Where rounding does not decide, the trees are the same."""
    check(cloud.pos, cloud.ptr, [16, 8], [2], [0., 45.], axes='principal')


@pytest.mark.skipif(not ASSEMBLER.exists(), reason='no assembler')
def test_compiles(tmp_path):
    r"""For GPUs that are not there."""
    env = {**os.environ, 'TRITON_INTERPRET': '0',
           'TRITON_CACHE_DIR': str(tmp_path)}
    subprocess.run([sys.executable, '-m', 'tests.ops.compile_trees_ahead',
                    '90'], env=env, check=True)


def test_switched_off(monkeypatch):
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setenv('CC', sys.executable)
    monkeypatch.delenv('TORCH_GEOMETRIC_ERWIN_NATIVE', raising=False)
    assert native._has_triton.__wrapped__()
    monkeypatch.setenv('TORCH_GEOMETRIC_ERWIN_NATIVE', '0')
    assert not native._has_triton.__wrapped__()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_trial(dtype, monkeypatch):
    r"""Kernels that fail it are not used."""
    case = DEVICE, dtype, 3
    assert all(triton.trial(DEVICE, dtype, dim) for dim in (1, 2, 3))
    launch = triton._launch
    monkeypatch.setattr(
        triton, '_launch', lambda name, *args: None
        if name == 'finish' else launch(name, *args))
    assert not triton.trial(*case)


@pytest.mark.skipif(not GPU, reason='no GPU')
@pytest.mark.parametrize('box', [False, True])
def test_host_does_not_wait(box):
    pos = torch.rand(50_000, 3, device=DEVICE)
    cell = torch.ones(2, 3, device=DEVICE) if box else None
    levels = count_levels(np.array([20_000, 30_000]), [64] * 3, [2, 2],
                          False)
    args = (pos, None, cell, levels, orientations([0., 45.], []))
    triton.build_run(*args)
    try:
        torch.cuda.set_sync_debug_mode('error')
        triton.build_run(*args)
    finally:
        torch.cuda.set_sync_debug_mode('default')
