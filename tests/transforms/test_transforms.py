import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, Data, HeteroData

from torch_geometric_erwin import BallTree, knn_graph, radius_graph
from torch_geometric_erwin.transforms import AddBallGraph, AddBallTree


def test_add_ball_tree():
    transform = AddBallTree(ball_size=[16, 8], strides=(2, ),
                            rotations=(0., 30., 60.), completion='perfect')
    assert str(transform) == (
        "AddBallTree(ball_size=[16, 8], rotations=(0.0, 30.0, 60.0), "
        "strides=(2,), completion='perfect')")
    data = Data(pos=torch.rand(100, 2))
    out = transform(data)
    assert 'ball_tree_sizes' not in data  # transforms do not change in place
    tree = BallTree.from_data(out)
    assert tree.ball_sizes == [16, 8] and tree.strides == [2]
    assert tree.num_orientations == 3 and tree.num_slots == 128


def test_transforms_that_differ_print_differently():
    r"""Or PyG would reuse what a dataset has kept of another one."""
    transforms = [
        AddBallTree(), AddBallTree(completion='perfect'),
        AddBallTree(box=1.), AddBallTree(box=torch.tensor([1., 2.])),
        AddBallTree(box='cell'), AddBallTree(node_types=['a']),
        AddBallTree(strides=(2, )), AddBallGraph(k=4), AddBallGraph(r=4.),
        AddBallGraph(k=4, loop=True), AddBallGraph(k=4, box=1.),
    ]
    assert len(set(map(str, transforms))) == len(transforms)


def test_functional_names():
    assert str(T.Compose([AddBallTree(), AddBallGraph(k=4)])) == (
        'Compose([\n  AddBallTree(ball_size=128, rotations=(0.0, 45.0)),\n'
        '  AddBallGraph(k=4)\n])')
    from torch_geometric.data.datapipes import DatasetAdapter
    pipe = DatasetAdapter([Data(pos=torch.rand(9, 2))])
    pipe = pipe.add_ball_tree(ball_size=4).add_ball_graph(k=2)
    data = next(iter(pipe))
    assert 'ball_tree_0_1' in data and data.edge_index.shape == (2, 18)


def test_box_by_name():
    data = Data(pos=3 * torch.rand(50, 3), cell=torch.tensor([[1., 2., 3.]]))
    tree = BallTree.from_data(AddBallTree(ball_size=8, box='cell')(data))
    assert torch.equal(tree.box, data.cell)
    assert (tree.pos < data.cell).all()


def test_batch_with_an_empty_cloud_at_the_end():
    items = [Data(pos=torch.rand(n, 3)) for n in (5, 0)]
    batch = AddBallTree(ball_size=4)(Batch.from_data_list(items))
    assert BallTree.from_data(batch).num_clouds == 2
    batch = AddBallGraph(k=2)(batch)
    assert batch.edge_index.size(1) == 10


def test_add_ball_graph():
    pos = torch.rand(60, 3)
    data = Data(pos=pos, edge_attr=torch.rand(7))
    out = AddBallGraph(k=5)(data)
    assert torch.equal(out.edge_index, knn_graph(pos, 5))
    assert out.edge_attr is None
    transform = AddBallGraph(r=0.3, loop=True, flow='target_to_source',
                             max_num_neighbors=4, box=1.)
    assert str(transform) == (
        "AddBallGraph(r=0.3, loop=True, max_num_neighbors=4, "
        "flow='target_to_source', box=1.0)")
    want = radius_graph(pos, 0.3, loop=True, flow='target_to_source',
                        max_num_neighbors=4, box=1.)
    assert torch.equal(transform(data).edge_index, want)


def test_add_ball_graph_hetero():
    data = HeteroData()
    data['a'].pos = torch.rand(10, 2)
    data['b'].pos = torch.rand(20, 2)
    out = AddBallGraph(k=3, node_types=['b'])(data)
    assert out.edge_types == [('b', 'ball', 'b')]
    assert out['b', 'ball', 'b'].edge_index.shape == (2, 60)
