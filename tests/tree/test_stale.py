r"""Trees that belong to other points, or to the same in another order."""

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader.utils import filter_data

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.transforms import AddBallGraph, AddBallTree

TREE = AddBallTree(16, strides=(2, ))


def make(size: int = 60) -> Data:
    pos = torch.rand(size, 3)
    return TREE(AddBallGraph(k=4)(Data(pos=pos, x=torch.rand(size, 4))))


def permuted(data: Data, perm: torch.Tensor) -> Data:
    r"""What users write who want points in another order."""
    data.pos, data.x = data.pos[perm], data.x[perm]
    return data


def loaded(data: Data, node: torch.Tensor) -> Data:
    r"""What PyG's loaders make of nodes that a sampler has drawn."""
    none = torch.empty(0, dtype=torch.long)
    return filter_data(data, node, none, none, none)


STALE = {
    'fixed points': lambda data: T.FixedPoints(60, replace=False)(data),
    'fixed points, some twice': lambda data: T.FixedPoints(
        60, replace=True)(data),
    'fewer points': lambda data: T.FixedPoints(20)(data),
    'subgraph': lambda data: data.subgraph(torch.arange(10, 50)),
    'a permutation as subgraph': lambda data: data.subgraph(
        torch.randperm(60)),
    'sorted by users': lambda data: permuted(data, data.pos[:, 0].argsort()),
    'two points swapped by users': lambda data: permuted(
        data, torch.tensor([1, 0, *range(2, 60)])),
    'loader of parts': lambda data: loaded(data, torch.arange(20)),
    'loader of all in another order': lambda data: loaded(
        data, torch.randperm(60)),
}


@pytest.mark.parametrize('name', STALE)
def test_other_points_are_refused(name):
    torch.manual_seed(0)
    data = STALE[name](make())
    with pytest.raises(ValueError, match="Let 'AddBallTree' come after"):
        BallTree.from_data(data)
    BallTree.from_data(TREE(data))


def test_parts_of_a_batch_are_refused():
    batch = Batch.from_data_list([make(30), make(40)])
    BallTree.from_data(batch)
    batch.pos[[3, 33]] = batch.pos[[33, 3]]
    BallTree.from_data(batch)  # to places where the other cloud was
    batch = Batch.from_data_list([make(30), make(40)])
    batch.pos[[33, 34]] = batch.pos[[34, 33]]
    with pytest.raises(ValueError, match='same positions in another order'):
        BallTree.from_data(batch)


MOVES = {
    'jitter': T.RandomJitter(0.01),
    'flip': T.RandomFlip(0, p=1.),
    'rotation': T.RandomRotate(30.),
    'scale': T.NormalizeScale(),
    'half': lambda data: data.apply(lambda x: x.half(), 'pos'),
    'nothing': lambda data: data.clone(),
}


@pytest.mark.parametrize('name', MOVES)
def test_moving_is_allowed(name):
    data = make()
    before = BallTree.from_data(data)
    after = BallTree.from_data(MOVES[name](data))
    assert torch.equal(before.partition(1).index, after.partition(1).index)


def test_coincident_points_have_no_order():
    data = make()
    data.pos[1] = data.pos[0]
    data = TREE(data)
    data.pos[:2] = data.pos[:2].flip(0)
    BallTree.from_data(data)


def test_batch_vector_has_to_agree():
    batch = Batch.from_data_list([make(30), make(40)])
    batch.batch = 1 - batch.batch
    with pytest.raises(ValueError, match="got another 'batch'"):
        BallTree.from_data(batch)


@pytest.mark.parametrize('number', [1, 2])
def test_homogeneous(number):
    r"""Trees of node types are not the tree of all nodes."""
    def hetero():
        data = HeteroData()
        for name in ('a', 'b'):
            data[name].pos = torch.rand(20, 3)
        return TREE(data)

    data = hetero() if number == 1 else Batch.from_data_list(
        [hetero() for _ in range(number)])
    assert BallTree.from_data(data['a']).num_points == 20 * number
    with pytest.raises(ValueError, match=r'one cloud|another'):
        BallTree.from_data(data.to_homogeneous())


@pytest.mark.parametrize('level', [0, 1])
def test_each_point_has_one_slot(level):
    data = make()
    slots = data[f'ball_tree_{level}_1'].view(-1)
    real = torch.nonzero(slots >= 0).view(-1)
    slots[real[0]] = slots[real[1]]  # one comes twice, and one never
    with pytest.raises(ValueError, match='one slot for each point'):
        BallTree.from_data(data)
    data = make()
    data[f'ball_tree_{level}_1'].view(-1)[real[0]] = 1000
    with pytest.raises(ValueError, match='one slot for each point'):
        BallTree.from_data(data)


def test_not_finite():
    data = make()
    data.pos[3, 1] = torch.nan
    with pytest.raises(ValueError, match='finite coordinates'):
        BallTree.from_data(data)


def test_with_pos():
    pos = torch.rand(60, 3, requires_grad=True)
    tree = BallTree.build(torch.rand(60, 3), ball_size=16)
    moved = tree.with_pos(pos)
    assert moved.pos is pos and moved.levels is tree.levels
    for bad, message in [
        (torch.rand(59, 3), "shape of the tree's positions"),
        (torch.rand(60, 2), "shape of the tree's positions"),
        (torch.full((60, 3), torch.inf), 'finite coordinates'),
        (torch.full((60, 3), 2e18), 'at most 1e'),
        (torch.ones(60, 3).long(), 'floating-point'),
    ]:
        with pytest.raises(ValueError, match=message):
            tree.with_pos(bad)


def test_knows_how_it_was_built():
    kwargs = {'rotations': (0., 30.5), 'completion': 'perfect'}
    data = AddBallTree(16, **kwargs)(Data(pos=torch.rand(60, 3)))
    tree = BallTree.from_data(Batch.from_data_list([data, data]))
    assert tree.rotations == (0., 30.5) and tree.completion == 'perfect'
    built = BallTree.build(data.pos, **kwargs)
    assert built.rotations == tree.rotations
    assert built.completion == tree.completion


def test_mixed_cells_in_a_batch():
    r"""Crystals, slabs and molecules, one cell each."""
    items = [
        Data(pos=torch.rand(30, 3), cell=torch.eye(3)[None],
             pbc=torch.tensor([[True, True, True]])),
        Data(pos=torch.rand(20, 3), pbc=torch.tensor([[True, True, False]]),
             cell=torch.tensor([[[1., 0, 0], [.5, 1, 0], [0, 0, 9]]])),
        Data(pos=torch.rand(10, 3), cell=torch.zeros(1, 3, 3),
             pbc=torch.tensor([[False, False, False]])),
    ]
    transform = AddBallTree(8, box='cell', pbc='pbc')
    batch = Batch.from_data_list([transform(item) for item in items])
    tree = BallTree.from_data(batch)
    assert tree.box.shape == (3, 3, 3)
    assert tree.box.any(2).tolist() == batch.pbc.tolist()
    built = BallTree.build(batch.pos, batch.batch, ball_size=8,
                           box=batch.cell, pbc=batch.pbc)
    for i in range(2):
        torch.testing.assert_close(tree.offsets(i), built.offsets(i))
    for i, part in enumerate(batch.to_data_list()):
        alone, rows = BallTree.from_data(part), batch.batch == i
        torch.testing.assert_close(alone.offsets(1), tree.offsets(1)[rows])
