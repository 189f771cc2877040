import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from tests.clouds import clouds, level_sizes
from tests.tree.test_permutation import same_levels
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.transforms import AddBallTree


def make(size: int, dim: int = 3, **kwargs) -> Data:
    args = {'ball_size': 8, 'strides': (2, 2), **kwargs}
    return AddBallTree(**args)(Data(pos=torch.rand(size, dim)))


def assert_equal_data(a, b) -> None:
    assert set(a.keys()) == set(b.keys())
    for key in a.keys():  # noqa: SIM118
        assert torch.equal(a[key], b[key]), key


@settings(max_examples=80, deadline=None)
@given(clouds(max_clouds=5), level_sizes(), st.booleans())
def test_batch_round_trip(cloud, sizes, periodic):
    box = 3. if periodic else None
    kwargs = {'ball_size': sizes[0], 'strides': sizes[1], 'box': box}
    pos = cloud.pos.clamp(-100, 100)
    transform = AddBallTree(**kwargs)
    items = [transform(Data(pos=p)) for p in pos.split(cloud.sizes)]
    batch = Batch.from_data_list(items)
    tree = BallTree.from_data(batch)
    want = BallTree.build(pos, ptr=batch.ptr, **kwargs)
    assert same_levels(tree, want)
    assert torch.equal(tree.pos, want.pos)
    assert torch.equal(tree.batch, batch.batch)
    for item, part in zip(items, batch.to_data_list(), strict=True):
        assert_equal_data(item, part)


def test_values_of_virtual_slots_are_marked():
    data = make(5, ball_size=8, strides=())
    tree = BallTree.build(data.pos, ball_size=8)
    part = tree.partition(0)
    stored = data.ball_tree_0_0.view(-1)
    assert torch.equal(stored >= 0, part.mask)
    assert torch.equal(torch.where(stored < 0, -1 - stored, stored).long(),
                       part.index)


def test_batch_of_slices():
    items = [make(n) for n in (10, 0, 31, 1)]
    batch = Batch.from_data_list(items)
    picked = Batch.from_data_list(batch[2:4])
    tree = BallTree.from_data(picked)
    want = BallTree.build(picked.pos, ptr=picked.ptr, ball_size=8,
                          strides=(2, 2))
    assert same_levels(tree, want)
    assert_equal_data(batch[0], items[0])
    single = batch.index_select(torch.tensor([3]))[0]
    assert BallTree.from_data(single).num_points == 1


def test_tree_written_to_a_batch_can_be_cut():
    items = [Data(pos=torch.rand(n, 2)) for n in (10, 0, 31)]
    batch = Batch.from_data_list(items)
    tree = BallTree.build(batch.pos, ptr=batch.ptr, ball_size=8,
                          strides=(2, ), box=2.)
    tree.to_data(batch)
    assert same_levels(BallTree.from_data(batch), tree)
    for item, part in zip(items, batch.to_data_list(), strict=True):
        want = AddBallTree(8, strides=(2, ), box=2.)(item)
        assert_equal_data(want, part)


def test_rewriting_leaves_nothing_behind():
    data = make(50)
    BallTree.build(data.pos, ball_size=16, rotations=[0.]).to_data(data)
    assert set(data.keys()) == {
        'pos', 'ball_tree_sizes', 'ball_tree_point', 'ball_tree_check',
        'ball_tree_0_0', 'ball_tree_built_balanced_(0.0,)'}
    assert BallTree.from_data(data).num_orientations == 1


@pytest.mark.parametrize('pin_memory', [False, torch.cuda.is_available()])
def test_workers(pin_memory):
    dataset = [Data(pos=torch.rand(n, 3)) for n in (5, 40, 0, 17, 80, 1)]
    transform = AddBallTree(ball_size=8, strides=(2, ))

    class Transformed(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, i: int) -> Data:
            return transform(dataset[i])

    BallTree.build(torch.rand(100_000, 3))  # threads before the fork
    loader = DataLoader(Transformed(), batch_size=3, num_workers=2,
                        pin_memory=pin_memory)
    seen = 0
    for batch in loader:
        tree = BallTree.from_data(batch)
        want = BallTree.build(batch.pos, ptr=batch.ptr, ball_size=8,
                              strides=(2, ))
        assert same_levels(tree, want)
        seen += batch.num_graphs
    assert seen == len(dataset)


def test_saved_with_weights_only():
    items = [make(n) for n in (10, 31)]
    stored = [item.to_dict() for item in items]
    file = io.BytesIO()
    torch.save(stored, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    for item, values in zip(items, loaded, strict=True):
        assert_equal_data(item, Data.from_dict(values))
    batch = Batch.from_data_list([Data.from_dict(v) for v in loaded])
    assert BallTree.from_data(batch).num_points == 41


def test_whole_objects_saved_with_weights_only():
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage
    data = make(31)
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    # What any `Data` needs; the tree adds no class of its own.
    own = [DataEdgeAttr, DataTensorAttr, GlobalStorage]
    with torch.serialization.safe_globals(own):
        assert_equal_data(torch.load(file, weights_only=True), data)


def test_hetero_data():
    def hetero(sizes):
        data = HeteroData()
        data['atom'].pos = torch.rand(sizes[0], 3)
        data['residue'].pos = torch.rand(sizes[1], 3)
        data['chain'].x = torch.rand(2, 4)
        data['atom', 'in', 'residue'].edge_index = torch.zeros(2, 1).long()
        return data

    items = [hetero(sizes) for sizes in ((20, 3), (7, 9), (33, 1))]
    transform = AddBallTree(ball_size=8, strides=(2, ))
    batch = Batch.from_data_list([transform(item) for item in items])
    for name in ('atom', 'residue'):
        store = batch[name]
        tree = BallTree.from_data(store)
        want = BallTree.build(store.pos, store.batch, ball_size=8,
                              strides=(2, ))
        assert same_levels(tree, want)
    assert 'ball_tree_sizes' not in batch['chain']
    only = AddBallTree(ball_size=8, node_types=['residue'])(items[0])
    assert 'ball_tree_sizes' not in only['atom']

    plain = Batch.from_data_list(items)
    BallTree.build(plain['atom'].pos, ptr=plain['atom'].ptr,
                   ball_size=8).to_data(plain['atom'])
    part = plain.to_data_list()[1]['atom']
    want = AddBallTree(ball_size=8)(items[1])['atom']
    assert torch.equal(part.ball_tree_0_1, want.ball_tree_0_1)


def test_wrapped_permutation():
    r"""Here each orientation has virtual slots of its own."""
    pos = torch.rand(3, 2)
    index, mask = torch.tensor([2, 2, 0, 1]), torch.tensor([1, 0, 1, 1]) > 0
    tree = BallTree.from_permutation(
        pos, None, index, mask, ball_size=2, strides=(2, ),
        rotated=[torch.tensor([3, 2, 1, 0]), torch.tensor([1, 0])])
    other = BallTree.from_data(tree.to_data(Data(pos=pos)))
    assert same_levels(tree, other)
    for i in range(2):
        assert torch.equal(tree.partition(i).mask, other.partition(i).mask)


def test_positions_stay_connected():
    data = make(20)
    data.pos.requires_grad_()
    tree = BallTree.from_data(data)
    tree.coarsen().pos.sum().backward()
    assert data.pos.grad is not None


def test_other_transforms_do_not_touch_the_tree():
    import torch_geometric.transforms as T
    data = T.Compose([AddBallTree(8, strides=(2, )), T.NormalizeScale()])(
        Data(pos=torch.rand(8, 3)))
    want = AddBallTree(8, strides=(2, ))(Data(pos=data.pos))
    for key in want.keys():  # noqa: SIM118
        assert torch.equal(data[key], want[key]) or key == 'ball_tree_check'
