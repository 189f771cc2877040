import torch
from torch import Tensor

from torch_geometric_erwin import BallTree


def same_levels(a: BallTree, b: BallTree) -> bool:
    def equal(x, y) -> bool:
        if isinstance(x, tuple):
            return all(map(equal, x, y))
        return torch.equal(x, y) if isinstance(x, Tensor) else x == y

    return all(
        equal(getattr(x, name), getattr(y, name))
        for x, y in zip(a.levels, b.levels, strict=True)
        for name in ('ball_size', 'stride', 'ptr', 'index', 'inverse', 'mask',
                     'group'))


def test_wraps_own_tree():
    r"""Wrapping a tree's own permutation gives the tree back."""
    pos = torch.rand(300, 3)
    batch = torch.arange(3).repeat_interleave(torch.tensor([3, 97, 200]))
    kwargs = {'ball_size': 32, 'strides': (4, 2)}
    tree = BallTree.build(pos, batch, **kwargs, rotations=(0., ),
                          completion='perfect')
    part = tree.partition(0)
    kwargs['ball_size'] = [32, 8, 4]
    other = BallTree.from_permutation(pos, batch, part.index, part.mask,
                                      **kwargs)
    assert torch.equal(other.partition(0).index, part.index)
    assert torch.equal(other.partition(0).inverse, part.inverse)
    assert torch.equal(other.partition(0).mask, part.mask)
    fine, coarse = tree.coarsen(), other.coarsen()
    assert torch.equal(fine.pos, coarse.pos)
    assert torch.equal(fine.batch, coarse.batch)
    assert torch.equal(fine.mass, coarse.mass)


def test_full_tree_is_the_same_in_all():
    pos = torch.rand(256, 2)
    kwargs = {'ball_size': 32, 'strides': (2, 4)}
    tree = BallTree.build(pos, **kwargs)
    turned, level = [], tree
    for _ in range(3):
        a, b = level.partition(0), level.partition(1)
        turned.append(a.inverse[b.index])
        level = level.coarsen() if level.num_levels > 1 else level
    other = BallTree.from_permutation(pos, None, tree.partition(0).index,
                                      None, **kwargs, rotated=turned)
    assert same_levels(tree, other)


def slots_of_three() -> tuple[Tensor, Tensor]:
    return torch.tensor([2, 2, 0, 1]), torch.tensor([True, False, True, True])


def test_masked_virtual_slots():
    pos = torch.tensor([[0.], [4.], [9.]])
    index, mask = slots_of_three()
    rotated = [torch.tensor([3, 2, 1, 0]), torch.tensor([1, 0])]
    tree = BallTree.from_permutation(pos, None, index, mask, ball_size=[2, 2],
                                     strides=(2, ), rotated=rotated)
    assert tree.num_points == 3
    assert tree.partition(0).mask.tolist() == mask.tolist()
    turned = tree.partition(1)
    assert turned.index.tolist() == [1, 0, 2, 2]
    assert turned.mask.tolist() == [True, True, False, True]
    assert turned.index[turned.inverse].tolist() == [0, 1, 2]
    assert turned.mask[turned.inverse].all()
    coarse = tree.coarsen()
    assert coarse.pos.view(-1).tolist() == [9., 2.]
    assert coarse.mass.tolist() == [1., 2.]
    assert coarse.partition(1).index.tolist() == [1, 0]


def test_virtual_slots_as_copies():
    r"""As the authors' code: a copy counts wherever a point counts."""
    pos = torch.tensor([[0.], [4.], [9.]])
    index, mask = slots_of_three()
    tree = BallTree.from_permutation(pos, None, index, mask, ball_size=[2, 2],
                                     strides=(2, ), virtual='copy')
    part = tree.partition(0)
    assert part.mask is None
    assert part.index.tolist() == index.tolist()
    assert part.inverse.tolist() == [2, 3, 0]
    coarse = tree.coarsen()
    assert coarse.pos.view(-1).tolist() == [9., 2.]
    assert coarse.mass.tolist() == [2., 2.]


def test_group_without_points():
    pos = torch.tensor([[1.], [3.]])
    index = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    mask = torch.tensor([True] + 3 * [False] + [True] + 3 * [False])
    tree = BallTree.from_permutation(pos, None, index, mask, ball_size=[8, 4],
                                     strides=(2, ))
    coarse = tree.coarsen()
    assert coarse.num_points == 2
    assert coarse.pos.view(-1).tolist() == [1., 3.]
    assert coarse.partition(0).mask.tolist() == [True, False, True, False]
    assert coarse.partition(0).index.tolist() == [0, 0, 1, 1]
