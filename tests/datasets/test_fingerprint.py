import collections
import functools
import os
import subprocess
import sys
import textwrap
import threading
import types

import numpy as np
import pytest
import torch
import torch_geometric.transforms as T

from torch_geometric_erwin.datasets import HaloMock, RingTransfer
from torch_geometric_erwin.datasets.cosmology import Cosmology
from torch_geometric_erwin.datasets.fingerprint import fingerprint
from torch_geometric_erwin.transforms import AddBallTree

FACTOR = 2


def add(data, number=0):
    return data


def scaled(data):
    return FACTOR * data


def closure(value):
    return lambda data: value


def local_transform(factor):
    class Local(T.BaseTransform):
        def forward(self, data):
            return factor * data

    return Local()


class Slots:
    __slots__ = ('__hidden', 'shown')

    def __init__(self, shown, hidden):
        self.shown, self.__hidden = shown, hidden


class MoreSlots(Slots):
    __slots__ = ('more', )

    def apply(self, data):
        return data


class Decorated:
    def __init__(self, number):
        self.number = number

    @functools.cached_property
    def twice(self):
        return 2 * self.number

    @functools.lru_cache  # noqa: B019
    def kept(self):
        return self.number

    @property
    def half(self):
        return self.number / 2

    @classmethod
    def make(cls):
        return cls(1)

    @staticmethod
    @torch.no_grad()
    def apply(data):
        return data


def ring(value):
    r"""An object that refers to itself in three ways."""
    out = types.SimpleNamespace(value=value)
    out.me, out.list, out.function = out, [out], lambda: out
    return out


def redefined(source):
    r"""What a function of a notebook is after its cell has run."""
    scope = {'__name__': '__main__'}
    exec(source, scope)
    return scope['f']


KINDS = {
    'options': [T.AddLaplacianEigenvectorPE(k=2),
                T.AddLaplacianEigenvectorPE(k=3),
                T.Compose([add]), T.Compose([add, add])],
    'tensors of transforms': [
        T.LinearTransformation(torch.eye(3)),
        T.LinearTransformation(torch.ones(3, 3)),
        T.FeaturePropagation(missing_mask=torch.ones(2, 2) > 0)],
    'partial': [functools.partial(add, number=1), add,
                functools.partial(add, number=2), None],
    'lambdas': [lambda data: 1, lambda data: 2, lambda data: -data,
                lambda data: +data],
    'names that code looks up': [lambda data: data.x, lambda data: data.y],
    'arguments': [lambda data, *, a, b: a, lambda data, *, b, a: b],
    'nested functions': [lambda data: [(lambda x: x + 1)(data)],
                         lambda data: [(lambda x: x + 2)(data)]],
    'sets in code': [lambda data: data in {1, 2, 'a'},
                     lambda data: data in {1, 2, 'b'}],
    'defaults': [lambda data, a=1: a, lambda data, a=2: a,
                 lambda data, *, a=1: a, lambda data, *, a=2: a],
    'closures': [closure(1), closure(2), closure(1.), closure([1]),
                 closure(closure(1)), closure(closure(2))],
    'redefined': [redefined(f'def f(data):\n    return {what}')
                  for what in ('data', '2 * data', 'data.x')],
    'globals': [redefined(f'a = {what}\ndef f(data):\n    return a')
                for what in ('1', '2', '[1]', 'lambda: 1', 'lambda: 2')],
    'globals of nested functions': [redefined(
        f'a = {what}\ndef f(data):\n    return lambda: a')
        for what in ('1', '2')],
    'local classes': [local_transform(1), local_transform(2)],
    'bound methods': [MoreSlots(1, 2).apply, MoreSlots(1, 3).apply,
                      T.Compose([add]).forward, T.Compose([]).forward],
    'compiled methods': [[1].count, [2].count, [1].index, str.upper],
    'slots': [MoreSlots(1, 2), MoreSlots(1, 3), MoreSlots(3, 2),
              Slots(1, 2)],
    'cycles': [ring(1), ring(2)],
    'caches': [functools.lru_cache(closure(1)),
               functools.lru_cache(closure(2))],
    'decorated': [Decorated(1), Decorated(2)],
    'numbers': [1, 1., True, '1', b'1', 1 + 0j, np.float32(1), np.int64(1),
                0., -0., float('nan'), np.ones(1), torch.ones(1)],
    'containers': [{'a': 1, 'b': 2}, {'b': 2, 'a': 1}, [1, 2], (1, 2),
                   {1, 2}, frozenset([1, 2]), collections.deque([1, 2]),
                   collections.OrderedDict(a=1, b=2)],
    'modules': [torch.nn.Sequential(collections.OrderedDict(pairs))
                for pairs in ([('a', torch.nn.ReLU()), ('b', None)],
                              [('b', None), ('a', torch.nn.ReLU())])],
    'dtypes': [torch.ones(2, dtype=dtype) for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.bfloat16, torch.half,
        torch.float, torch.cfloat, torch.float8_e4m3fn, torch.float8_e5m2)],
    'bfloat16': [torch.tensor([1.]).bfloat16(), torch.tensor(1.).bfloat16(),
                 torch.tensor([2.]).bfloat16()],
    'views': [torch.tensor([1j]), torch.tensor([1j]).conj(),
              torch.tensor([2j])],
    'sparse': [make(matrix) for matrix in (torch.eye(4), 2 * torch.eye(4),
                                           torch.eye(4).flip(0))
               for make in (torch.Tensor.to_sparse, torch.Tensor.to_dense,
                            torch.Tensor.to_sparse_csr,
                            torch.Tensor.to_sparse_csc,
                            lambda x: x.to_sparse_bsr(2),
                            lambda x: x.to_sparse_bsc(2))],
    'states': [torch.Generator().manual_seed(seed) for seed in (1, 2)],
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.filterwarnings('ignore:Sparse')
def test_what_differs_is_told_apart(kind):
    prints = [fingerprint(value) for value in KINDS[kind]]
    assert len(set(prints)) == len(prints)
    assert prints == [fingerprint(value) for value in KINDS[kind]]


@pytest.mark.parametrize('make', [
    lambda: T.Compose([T.AddRandomWalkPE(4), T.NormalizeScale()]),
    lambda: closure([1, torch.ones(2)]), lambda: local_transform(3),
    lambda: ring(3), lambda: MoreSlots(1, 'a').apply, lambda: Decorated(3),
    lambda: functools.partial(add, number={'a', 'b'}),
    lambda: redefined('a = 1\ndef f(data):\n    return f(a)'),
    lambda: torch.eye(2).bfloat16().to_sparse(),
])
def test_what_is_made_alike_is_the_same(make):
    assert fingerprint('a', make()) == fingerprint('a', make())
    assert fingerprint('a', make()) != fingerprint('b', make())


def test_globals_count(monkeypatch):
    before = fingerprint(scaled)
    assert fingerprint(scaled) == before
    monkeypatch.setitem(globals(), 'FACTOR', 3)
    assert fingerprint(scaled) != before


def test_modules_of_ones_own_count(monkeypatch):
    helper = types.ModuleType('helper_of_this_test')
    monkeypatch.setitem(sys.modules, helper.__name__, helper)
    f = redefined('def f(data):\n    return helper.change(data)')
    f.__globals__['helper'] = helper
    prints = []
    for helper.change in (closure(1), closure(2)):
        prints.append(fingerprint(f))
        helper.unrelated = len(prints)
        assert fingerprint(f) == prints[-1]
    assert prints[0] != prints[1]


def test_code_of_installed_packages_is_not_walked(monkeypatch):
    r"""What they keep in their globals changes from run to run."""
    before = fingerprint(AddBallTree(64), torch.nn.functional.relu)
    module = sys.modules[AddBallTree.__module__]
    monkeypatch.setattr(AddBallTree, 'other', closure(1), raising=False)
    monkeypatch.setattr(module, 'remove_tree', closure(1), raising=False)
    assert fingerprint(AddBallTree(64), torch.nn.functional.relu) == before
    assert fingerprint(AddBallTree(32), torch.nn.functional.relu) != before


SCRIPT = '''
    import sys
    import numpy as np
    import tests.datasets.test_fingerprint as here
    from torch_geometric_erwin.datasets.fingerprint import fingerprint

    FIXED = {'a', 'b', 'c'}

    class Mine:
        words = {'one', 'two', 'three'}

        def __init__(self):
            self.rng, self.me = np.random.default_rng(0), self

        def __call__(self, data, words=frozenset('abc')):
            return data in {'x', 'y', 'z'}, FIXED, words, data.number

    held = [object() for _ in range(int(sys.argv[1]))]  # other addresses
    print([fingerprint(here.KINDS[kind]) for kind in here.KINDS],
          fingerprint(Mine()), fingerprint(Mine().__call__),
          fingerprint(lambda data: Mine()(FIXED)))
'''


def test_other_processes_find_the_same():
    runs = []
    for seed in ('1', '2'):
        env = {**os.environ, 'PYTHONHASHSEED': seed,
               'PYTHONPATH': os.pathsep.join(sys.path)}
        runs.append(subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(SCRIPT),
             str(1000 * int(seed))], env=env, stdout=subprocess.PIPE,
            text=True))
    first, second = (run.communicate()[0] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert first == second and len(first) > 16 * len(KINDS)


@pytest.mark.parametrize('value', [
    object(), threading.Lock(), (i for i in ()), np.array([None]),
    torch.ones(2, device='meta'),
    functools.reduce(lambda a, _: [a], range(3000), []),
], ids=['object', 'lock', 'generator', 'objects', 'meta', 'deep'])
def test_what_cannot_be_told_apart(tmp_path, value):
    for hidden in (value, closure(value), T.Compose([value]), [value]):
        with pytest.raises(ValueError, match='Expected what data are made'):
            fingerprint(hidden)
    for name in ('pre_transform', 'pre_filter'):
        with pytest.raises(ValueError, match=f"Expected '{name}' to be told"):
            RingTransfer(str(tmp_path), num_graphs=1, **{
                name: closure(value)})
    assert not any(tmp_path.iterdir())


def test_getstate_is_the_cure():
    class Locked:
        def __init__(self, number):
            self.number, self.lock = number, threading.Lock()

        def __getstate__(self):
            return {'number': self.number}

    prints = {fingerprint(Locked(number)) for number in (1, 1, 2)}
    assert len(prints) == 2


def test_graphs_are_those_of_ones_own_functions(tmp_path):
    r"""Datasets in one folder, as their users see them."""
    def marked(value):
        def mark(data):
            data.mark = value
            return data

        class Mark(T.BaseTransform):
            forward = staticmethod(mark)

        return [mark, T.Compose([mark]), Mark(), Mark().forward,
                functools.partial(mark)]

    def make(transform):
        return RingTransfer(str(tmp_path), num_graphs=1,
                            pre_transform=transform)

    for value in (1, 2):
        for transform in marked(value):
            assert make(transform)[0].mark == value
    assert make(marked(1)[0]).processed_dir == make(
        marked(1)[0]).processed_dir
    assert 'mark' not in make(None)[0]


def test_transforms_that_change_as_they_run(tmp_path):
    class Count(T.BaseTransform):
        def __init__(self):
            self.calls = 0

        def forward(self, data):
            self.calls += 1
            data.call = self.calls
            return data

    def make():
        return RingTransfer(str(tmp_path), num_graphs=2,
                            pre_transform=Count())

    first, second = make(), make()
    assert [data.call for data in first] == [1, 2]
    assert first.processed_dir == second.processed_dir
    assert second.pre_transform.calls == 0


def test_other_classes_make_other_graphs(tmp_path):
    class Still(HaloMock):
        def make(self, i):
            data = super().make(i)
            data.y.zero_()
            return data

    class Bright(Cosmology):
        def velocity_unit(self, z):
            return 2 * super().velocity_unit(z)

    def make(cls, **kwargs):
        return cls(str(tmp_path), num_clouds=1, num_halos=9, grid_size=8,
                   **kwargs)[0].y

    plain, fast = make(HaloMock), make(HaloMock, cosmology=Bright())
    assert plain.any() and not make(Still).any()
    assert torch.allclose(fast, 2 * plain)
