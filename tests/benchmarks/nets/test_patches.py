import torch
from torch_geometric.data import Batch, Data

from benchmarks.experiments.nets.patches import Patches, plain_tree


def test_patches_are_of_one_cloud_and_as_equal_as_can_be():
    torch.manual_seed(0)
    batch = torch.arange(3).repeat_interleave(torch.tensor([129, 1, 300]))
    order = torch.cat([torch.randperm(129), torch.tensor([129]),
                       torch.randperm(300) + 130])
    index, mask, slot = Patches.of(order, batch, 3, 128)
    assert sorted(mask.sum(1).tolist()) == [1, 64, 65, 100, 100, 100]
    assert torch.equal(index[mask], order)
    assert torch.equal(index.flatten()[slot], torch.arange(430))
    for points, there in zip(index, mask, strict=True):
        assert len(batch[points[there]].unique()) == 1


def test_patches_are_the_balls_of_a_tree():
    torch.manual_seed(0)
    batch = Batch.from_data_list([
        Data(pos=torch.rand(size, 3)) for size in (75, 1, 32)])
    tree = plain_tree(batch, 16)
    patches = Patches.balls(tree)
    assert patches.mask.sum(1).tolist() == [15] * 5 + [1, 16, 16]
    assert torch.equal(patches.patch(), tree.ball_of_point())
    assert torch.allclose(patches.mean(batch.pos), tree.centers(), atol=1e-6)
    assert patches.per_patch(batch.batch).tolist() == [0] * 5 + [1, 2, 2]
