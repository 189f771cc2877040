import torch
from torch_geometric.data import Batch, Data

from benchmarks.experiments.nets.levels import Level
from benchmarks.experiments.nets.pointnet2 import interpolate


def make_level(*sizes: int) -> Level:
    torch.manual_seed(0)
    return Level.of(Batch.from_data_list([
        Data(pos=torch.rand(size, 3)) for size in sizes]))


def test_one_point_of_each_stride_is_kept():
    fine = make_level(101, 1, 4, 5)
    coarse, index = fine.coarsen(4)
    assert coarse.batch.bincount().tolist() == [26, 1, 1, 2]
    assert index.unique().numel() == len(index)
    assert torch.equal(coarse.pos, fine.pos[index])
    assert torch.equal(coarse.batch, fine.batch[index])


def test_what_is_kept_is_spread_out():
    fine = make_level(4096)
    coarse, _ = fine.coarsen(8)

    def nearest(level: Level) -> torch.Tensor:
        distance = torch.cdist(fine.pos, level.pos).min(dim=1).values
        return distance.max()

    draw = torch.randperm(4096)[:len(coarse.pos)]
    chance = fine._replace(pos=fine.pos[draw], batch=fine.batch[draw])
    assert nearest(coarse) < nearest(chance)


def test_interpolation_keeps_what_is_known_and_constants():
    fine = make_level(50, 2)
    coarse, index = fine.coarsen(2)
    x = torch.randn(len(index), 4)
    out = interpolate(x, coarse, fine)
    assert torch.allclose(out[index], x, atol=1e-4)
    out = interpolate(torch.ones(len(index), 1), coarse, fine)
    assert torch.allclose(out, torch.ones(52, 1))
