r"""Positions that are kept under another name."""

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from tests.transforms import graphs
from torch_geometric_erwin import BallTree, knn_graph
from torch_geometric_erwin.transforms import (
    AddBallGraph,
    AddBallTree,
    AddLaplacianPos,
    AddRandomWalkPos,
)


def conformers():
    return [Data(pos=torch.rand(n, 2), conformer=torch.rand(n, 3))
            for n in (9, 20, 13)]


def test_tree_remembers_its_positions():
    transform = AddBallTree(ball_size=4, attr='conformer')
    items = list(map(transform, conformers()))
    batch = next(iter(DataLoader(items, 3, num_workers=1)))
    tree = BallTree.from_data(batch)
    assert torch.equal(tree.pos, batch.conformer)
    want = BallTree.build(batch.conformer, batch.batch, ball_size=4)
    assert torch.equal(tree.partition(0).index, want.partition(0).index)
    for item, part in zip(items, batch.to_data_list(), strict=True):
        assert torch.equal(BallTree.from_data(part).pos, item.conformer)


def test_batch_is_cut_after_the_transform():
    items = conformers()
    batch = AddBallTree(ball_size=4, attr='conformer')(
        Batch.from_data_list(items))
    for item, part in zip(items, batch.to_data_list(), strict=True):
        assert torch.equal(BallTree.from_data(part).pos, item.conformer)


def test_another_tree_takes_the_place():
    data = AddBallTree(ball_size=4, attr='conformer')(conformers()[0])
    data = AddBallTree(ball_size=4)(data)
    assert torch.equal(BallTree.from_data(data).pos, data.pos)
    del data.pos
    with pytest.raises(ValueError, match="to have the positions 'pos'"):
        BallTree.from_data(data)


def test_ball_graph():
    data = conformers()[1]
    out = AddBallGraph(k=4, attr='conformer')(data)
    assert torch.equal(out.edge_index, knn_graph(data.conformer, 4))


def test_hetero():
    data = HeteroData()
    data['a'].conformer = torch.rand(10, 3)
    data['b'].pos = torch.rand(20, 2)
    out = T.Compose([AddBallTree(ball_size=4, attr='conformer'),
                     AddBallGraph(k=2, attr='conformer')])(data)
    assert out.edge_types == [('a', 'ball', 'a')]
    assert torch.equal(BallTree.from_data(out['a']).pos, data['a'].conformer)
    assert 'ball_tree_sizes' not in out['b']


def test_errors_name_the_attribute_and_what_writes_it():
    data = graphs.ring(5)
    for transform in (AddBallTree(), AddBallGraph(k=2)):
        with pytest.raises(ValueError, match=r"have positions 'pos' \(got no "
                           r".*AddLaplacianPos.*AddRandomWalkPos"):
            transform(data)
    with pytest.raises(ValueError, match="have positions 'conformer'"):
        AddBallTree(attr='conformer')(data)


@pytest.mark.parametrize('give', [AddLaplacianPos, AddRandomWalkPos])
def test_graphs_without_positions(give):
    transform = T.Compose([give(3, attr='place'),
                           AddBallTree(ball_size=4, attr='place')])
    items = [transform(graphs.ring(n)) for n in (3, 10)]
    tree = BallTree.from_data(Batch.from_data_list(items))
    assert tree.pos.shape == (13, 3) and tree.num_clouds == 2


def test_repr():
    assert str(AddBallTree(attr='p')) == (
        "AddBallTree(ball_size=128, rotations=(0.0, 45.0), attr='p')")
    assert str(AddBallGraph(k=2, attr='p')) == "AddBallGraph(k=2, attr='p')"


def test_functional_names():
    from torch_geometric.data.datapipes import DatasetAdapter
    pipe = DatasetAdapter([graphs.ring(9)])
    pipe = pipe.add_laplacian_pos(dim=3).add_random_walk_pos(2, 'walk')
    data = next(iter(pipe))
    assert data.pos.shape == (9, 3) and data.walk.shape == (9, 2)
