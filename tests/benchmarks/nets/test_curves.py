import pytest
import torch
from torch_geometric.data import Batch, Data

from benchmarks.experiments.nets.curves import curve_orders, hilbert, morton


@pytest.mark.parametrize('dim, bits', [(1, 4), (2, 4), (3, 3), (4, 2)])
def test_curves_fill_space(dim, bits):
    axis = torch.arange(2**bits)
    cells = torch.cartesian_prod(*[axis] * dim).view(-1, dim)
    for curve in (morton, hilbert):
        code = curve(cells, bits)
        assert torch.equal(code.sort().values, torch.arange(len(cells)))
    # From one cell of Hilbert's curve to the next, it is one step.
    steps = cells[code.argsort()].diff(dim=0).abs().sum(dim=1)
    assert (steps == 1).all()


def test_morton_takes_the_bits_in_turn():
    assert morton(torch.tensor([[0b11, 0b00, 0b01]]), 2) == 0b100101


def test_orders_go_cloud_by_cloud_along_curves_that_differ():
    torch.manual_seed(0)
    batch = Batch.from_data_list([
        Data(pos=torch.rand(size, 3)) for size in (100, 1, 50)])
    orders = curve_orders(batch)
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(151))
        assert torch.equal(batch.batch[order], batch.batch)
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_orders_follow_scaled_clouds_and_images_of_points():
    torch.manual_seed(0)
    data = Data(pos=torch.rand(100, 3).double())
    orders = curve_orders(Batch.from_data_list([data]))
    data.pos = 3 * data.pos + 1
    again = curve_orders(Batch.from_data_list([data]))
    assert all(map(torch.equal, orders, again))
    data.box = torch.tensor([[4., 5., 6.]]).double()
    orders = curve_orders(Batch.from_data_list([data]))
    data.pos = data.pos + torch.randint(-1, 2, (100, 3)) * data.box
    again = curve_orders(Batch.from_data_list([data]))
    assert all(map(torch.equal, orders, again))
