r"""Guarantee 10: bad input is a `ValueError` that says what is wrong."""

import re

import pytest
import torch
from torch_geometric.data import Data

from torch_geometric_erwin import (
    BallTree,
    knn,
    knn_graph,
    radius,
    radius_graph,
)
from torch_geometric_erwin.transforms import AddBallGraph, AddBallTree

POS = torch.rand(6, 2)
NAN = torch.tensor([[0., 1.], [float('nan'), 0.]])
INDEX = torch.arange(6)

BUILD = [
    ({'pos': [[0., 1.]]}, "Expected 'pos' to be a tensor (got list)"),
    ({'pos': torch.rand(6)}, "Expected 'pos' to have shape [num_points, dim]"
     " with dim >= 1 (got [6])"),
    ({'pos': torch.rand(6, 0)}, "(got [6, 0])"),
    ({'pos': torch.ones(6, 2).long()},
     "Expected 'pos' to be floating-point (got torch.int64)"),
    ({'pos': NAN}, "Expected 'pos' to have finite coordinates"),
    ({'pos': torch.tensor([[float('inf'), 0.]])},
     "Expected 'pos' to have finite coordinates"),
    ({'pos': torch.full((40, 3), 3e38)},
     "Expected 'pos' to have coordinates of at most 1e+18, also when turned"),
    ({'pos': torch.tensor([[0.], [9e17]]).expand(2, 3)},
     "(got up to 9e+17)"),
    ({'ball_size': 2, 'strides': [1] * 16},
     "Expected 'strides' to make at most 16 levels (got 17)"),
    ({'ball_size': 48}, "Expected 'ball_size' to be a power of two (got 48)"),
    ({'ball_size': 0}, "Expected 'ball_size' to be a power of two (got 0)"),
    ({'ball_size': 8.}, "Expected 'ball_size' to be a power of two"),
    ({'ball_size': True}, "Expected 'ball_size' to be a power of two"),
    ({'ball_size': [8, 8]}, "Expected 'ball_size' to be an integer or have "
     "one entry per level, 1 (got 2)"),
    ({'strides': (3, )}, "Expected 'strides' to be a power of two (got 3)"),
    ({'ball_size': 4, 'strides': (8, )},
     "Expected 'strides' to be at most the size of the balls they pool, 4 "
     "(got 8)"),
    ({'rotations': ()}, "Expected 'rotations' to be at least one finite"),
    ({'rotations': (float('nan'), )}, "Expected 'rotations' to be"),
    ({'completion': 'none'}, "Expected 'completion' to be 'balanced' or "
     "'perfect' (got 'none')"),
    ({'batch': torch.zeros(5).long()},
     "Expected 'batch' to have one entry per point, 6 (got 5)"),
    ({'batch': torch.zeros(6)}, "Expected 'batch' to hold integers"),
    ({'batch': torch.zeros(6, 1).long()},
     "Expected 'batch' to be a one-dimensional tensor (got [6, 1])"),
    ({'batch': torch.tensor([0, 0, -1, 0, 0, 0])},
     "Expected 'batch' to hold no negative number (got -1)"),
    ({'batch': torch.zeros(6).long().to('meta')},
     "Expected 'batch' to be on the device of the positions, cpu (got meta)"),
    ({'ptr': torch.tensor([0, 4])}, "Expected 'ptr' to rise from 0 to the "
     "number of points, 6 (got [0, 4])"),
    ({'ptr': torch.tensor([0, 7, 6])}, "Expected 'ptr' to rise"),
    ({'ptr': torch.tensor([], dtype=torch.long)}, "Expected 'ptr' to rise"),
    ({'ptr': torch.tensor([0, 2, 6]), 'batch': torch.zeros(6).long()},
     "Expected 'batch' to be what 'ptr' says"),
    ({'box': 0.}, "Expected 'box' to have positive, finite edges (got 0.0)"),
    ({'box': [1., 1., 1.]},
     "Expected 'box' to be a number, edges of shape [2]"),
    ({'box': [[1., 1.], [2., 2.]]}, "Expected 'box' to have linearly"),
    ({'box': torch.zeros(1, 2, 2), 'pbc': True},
     "Expected 'box' to have finite vectors, that are not zero"),
    ({'box': torch.full((2, 2), torch.nan)}, "Expected 'box' to have finite"),
    ({'box': 1., 'pbc': [1, 0]}, "Expected 'pbc' to be a boolean or have"),
    ({'box': 1., 'pbc': [True]}, "Expected 'pbc' to be a boolean or have"),
    ({'pbc': True}, "Expected 'pbc' to be given along with 'box'"),
    ({'box': [1., float('inf')]}, "Expected 'box' to have positive, finite"),
]


@pytest.mark.parametrize('kwargs, message', BUILD)
def test_build(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BallTree.build(**{'pos': POS, **kwargs})


def test_not_finite_in_torch_builder():
    from torch_geometric_erwin.ops.build_tree import build_tree
    ptr = torch.tensor([0, 2])
    with pytest.raises(ValueError, match='finite coordinates'):
        build_tree(NAN, ptr, [4], [], [0.], backend='torch')
    large = torch.full((2, 2), 3e38)
    with pytest.raises(ValueError, match='at most 1e'):
        build_tree(large, ptr, [4], [], [0., 45.], backend='torch')


def test_levels_in_the_kernel():
    r"""Whoever calls the operator, under ``python -O``, too."""
    from torch_geometric_erwin.ops.build_tree import build_tree
    for backend in ('cpp', 'auto'):
        with pytest.raises(ValueError, match='at most 16 levels'):
            build_tree(torch.rand(4, 2), torch.tensor([0, 4]), [4] * 17,
                       [2] * 16, [0.], backend=backend)


PERMUTATION = [
    ({'index': INDEX[:5]}, "Expected 'index[mask]' to be a permutation of "
     "the 6 points"),
    ({'index': INDEX + 1}, "Expected 'index[mask]' to be a permutation"),
    ({'ball_size': 4}, "Expected 'ball_size' to divide the number of slots, "
     "6 (got 4)"),
    ({'mask': torch.ones(5, dtype=torch.bool)},
     "Expected 'mask' to be boolean with one entry per slot, [6] "
     "(got torch.bool, [5])"),
    ({'mask': torch.ones(6)}, "Expected 'mask' to be boolean"),
    ({'batch': torch.tensor([0, 0, 0, 1, 1, 1])},
     "Expected each ball of 'index' to hold points of one cloud (got balls "
     "of size 2 that mix clouds)"),
    ({'virtual': 'shown'},
     "Expected 'virtual' to be 'masked' or 'copy' (got 'shown')"),
    ({'rotated': []}, "Expected 'rotated' to have one permutation per level, "
     "1 (got 0)"),
    ({'rotated': [INDEX // 2]},
     "Expected 'rotated[0]' to be a permutation of the level's 6 slots"),
]


@pytest.mark.parametrize('kwargs, message', PERMUTATION)
def test_from_permutation(kwargs, message):
    args = {'pos': POS, 'batch': None, 'index': INDEX, 'mask': None,
            'ball_size': 2}
    with pytest.raises(ValueError, match=re.escape(message)):
        BallTree.from_permutation(**{**args, **kwargs})


@pytest.mark.parametrize('call, message', [
    (lambda tree: tree.coarsen(), "Expected 'strides' to be given"),
    (lambda tree: tree.partition(2),
     "Expected 'i' to be one of the tree's 2 orientations (got 2)"),
    (lambda tree: tree.centers(1), "Expected 'level' to be in [0, 1) (got 1)"),
    (lambda tree: tree.radii(-1), "Expected 'level' to be in [0, 1)"),
    (lambda tree: tree.to_data(Data(pos=torch.rand(3, 2))),
     "Expected 'data' to have the tree's 6 points (got 3)"),
])
def test_methods(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(BallTree.build(POS, ball_size=4))


def test_storing_what_cannot_be_stored():
    mixed = BallTree.build(POS, torch.tensor([1, 0, 1, 0, 1, 0]), ball_size=4)
    with pytest.raises(ValueError, match="Expected 'batch' to be sorted"):
        mixed.to_data(Data(pos=POS))
    copies = BallTree.from_permutation(POS, None, INDEX, None, ball_size=2,
                                       virtual='copy')
    with pytest.raises(ValueError, match="virtual='masked'"):
        copies.to_data(Data(pos=POS))
    with pytest.raises(ValueError, match="Expected 'virtual' to be 'masked'"):
        copies.edge_index()
    coarse = BallTree.build(POS, ball_size=4, strides=(2, )).coarsen()
    with pytest.raises(ValueError, match='finest level'):
        coarse.to_data(Data())


def test_reading_what_is_not_there():
    with pytest.raises(ValueError, match=r"Expected 'data' to hold a ball "
                       r"tree \(got none: use the 'AddBallTree' transform"):
        BallTree.from_data(Data(pos=POS))
    data = AddBallTree(ball_size=4)(Data(pos=POS))
    data.pos = POS[:4]
    with pytest.raises(ValueError, match='the points that its ball tree was '
                       r'built for \(got 4 points\)'):
        BallTree.from_data(data)
    data = AddBallTree(ball_size=4)(Data(pos=POS))
    data.ball_tree_0_1 = data.ball_tree_0_1[:1]
    data.ball_tree_0_0 = data.ball_tree_0_0[:1]
    with pytest.raises(ValueError, match='hold a whole ball tree'):
        BallTree.from_data(data)


@pytest.mark.parametrize('transform', [AddBallTree(), AddBallGraph(k=2)])
def test_transforms_without_positions(transform):
    with pytest.raises(ValueError, match="have positions 'pos'"):
        transform(Data(x=POS))


def test_transforms():
    with pytest.raises(ValueError, match="either 'k' or 'r'"):
        AddBallGraph()
    with pytest.raises(ValueError, match="either 'k' or 'r'"):
        AddBallGraph(k=1, r=1.)
    with pytest.raises(ValueError, match="an attribute 'cell'"):
        AddBallTree(box='cell')(Data(pos=POS))


NEIGHBORS = [
    (lambda: knn_graph(POS, 0), "Expected 'k' to be a positive integer "
     "(got 0)"),
    (lambda: knn_graph(POS, 1.5), "Expected 'k' to be a positive integer"),
    (lambda: knn_graph(POS, 1, flow='up'),
     "Expected 'flow' to be 'source_to_target' or 'target_to_source' "
     "(got 'up')"),
    (lambda: knn_graph(POS.long(), 1), "Expected 'pos' to be floating-point"),
    (lambda: knn_graph(NAN, 1), "Expected 'pos' to have finite coordinates"),
    (lambda: knn_graph(NAN, 1, box=1.), "Expected 'pos' to have finite"),
    (lambda: knn_graph(POS, 1, torch.zeros(2).long()),
     "Expected 'batch' to have one entry per point, 6 (got 2)"),
    (lambda: knn_graph(POS, 1, INDEX, batch_size=2),
     "Expected 'batch_size' to be at least the number of clouds, 6 (got 2)"),
    (lambda: knn_graph(0 * POS, 1, cosine=True),
     "Expected 'pos' to have no zero vector when 'cosine' is set"),
    (lambda: radius_graph(POS, -1.),
     "Expected 'r' to be a finite distance of at least zero (got -1.0)"),
    (lambda: radius_graph(POS, float('nan')), "Expected 'r' to be a finite"),
    (lambda: radius_graph(POS, 1., max_num_neighbors=0),
     "Expected 'max_num_neighbors' to be a positive integer or None (got 0)"),
    (lambda: radius_graph(POS, 1., box=-1.),
     "Expected 'box' to have positive, finite edges"),
    (lambda: knn(POS, torch.rand(3, 3), 1),
     "Expected 'x' and 'y' to agree in dimension, type and device"),
    (lambda: radius(POS, POS.double(), 1.), "Expected 'x' and 'y' to agree"),
    (lambda: radius(POS, NAN, 1.), "Expected 'y' to have finite"),
    (lambda: knn(NAN, POS, 1), "Expected 'x' to have finite"),
]


@pytest.mark.parametrize('call, message', NEIGHBORS)
def test_neighbors(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
