import copy

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.data import Batch, Data

from benchmarks.experiments.nets import DilResNet, UNet
from benchmarks.experiments.nets.levels import Level
from benchmarks.experiments.nets.raster import Raster, place
from tests.benchmarks.nets.operators import operator


def make_batch(*sizes, dim=2, box=None, dtype=torch.double):
    generator = torch.Generator().manual_seed(0)
    return Batch.from_data_list([Data(
        x=torch.randn(size, 2, generator=generator, dtype=dtype),
        pos=torch.rand(size, dim, generator=generator, dtype=dtype) * 3 - 1,
        **({} if box is None else {'box': box.to(dtype)}),
    ) for size in sizes])


def node_positions(data, raster, margin):
    r"""Of an open cloud."""
    low = torch.stack([data[i].pos.amin(0) for i in range(data.num_graphs)])
    axes = [torch.arange(raster.resolution)] * data.pos.size(1)
    node = torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=0) - margin

    def spread(x):
        return x.reshape(*x.shape, *[1] * data.pos.size(1))

    return spread(low) + node * spread(raster.cell)


@pytest.mark.parametrize('dim', [1, 2, 3])
@pytest.mark.parametrize('margin', [1, 3])
def test_linear_fields_come_back(dim, margin):
    data = make_batch(20, 1, 50, dim=dim)
    raster = Raster.of(data, 12, margin)
    assert torch.allclose(raster.weight.sum(1),
                          torch.ones(71, dtype=torch.double))
    assert raster.weight.min() >= 0 and raster.weight.max() > 0.3
    grid = node_positions(data, raster, margin)
    assert torch.allclose(raster.gather(grid), data.pos, atol=1e-12)
    used = raster.scatter(data.x)[:, 2] > 0  # and no node of the margin is
    for axis in range(1, dim + 1):
        assert not used.narrow(axis, 0, margin).any()
        assert not used.narrow(axis, 12 - margin + 1, margin - 1).any()


@pytest.mark.parametrize('box', [None, torch.tensor([[2., 1.5]])])
def test_nodes_have_the_mean_of_what_is_around(box):
    data = make_batch(30, 5, box=box)
    data.x[:, 1] = 7.
    raster = Raster.of(data, 9)
    mean, log, cell = raster.scatter(data.x).split([2, 1, 2], dim=1)
    weight = log.expm1()
    assert torch.allclose(weight.flatten(1).sum(1),
                          torch.tensor([30., 5.]).double())
    empty = weight[1, 0] == 0
    assert empty.any() and (mean[1][:, empty] == 0).all()
    full = weight[:, 0] > 0.02
    assert torch.allclose(mean[:, 1][full], torch.tensor(7.).double())
    assert mean[:, 1].max() <= 7 + 1e-12
    assert torch.equal(cell[..., 4, 4], raster.cell)
    # Gathering is the transpose of scattering.
    value = torch.randn(2, 2, 9, 9, dtype=torch.double)
    total = (mean * weight.clamp(min=0.01) * value).sum()
    assert torch.allclose((raster.gather(value) * data.x).sum(), total)


def test_a_mean_by_hand():
    data = Batch.from_data_list([Data(
        x=torch.tensor([[1.], [5.]]), pos=torch.tensor([[0.25], [1.5]]),
        box=torch.tensor([[4.]]))])
    grid = Raster.of(data, 4).scatter(data.x)
    want = [1., (0.25 * 1 + 0.5 * 5) / 0.75, 5., 0.]
    assert torch.allclose(grid[0, 0], torch.tensor(want))
    assert torch.allclose(grid[0, 1].expm1(),
                          torch.tensor([0.75, 0.75, 0.5, 0.]))
    assert (grid[0, 2] == 1).all()


def test_a_box_has_no_border():
    data = make_batch(20, box=torch.tensor([[2., 1.5]]))
    raster = Raster.of(data, 6)
    moved = data.clone()
    moved.pos = data.pos + raster.cell * torch.tensor([7, -2])
    grid = Raster.of(moved, 6).scatter(data.x)
    want = raster.scatter(data.x).roll((7, -2), dims=(2, 3))
    assert torch.allclose(grid, want, atol=1e-10)


@pytest.mark.parametrize('box, match', [
    (torch.eye(2).unsqueeze(0), r'shape \[1, 2\] .*got \[1, 2, 2\]'),
    (torch.ones(1, 3), r'shape \[1, 2\] .*got \[1, 3\]'),
    (torch.tensor([[1., 0.]]), r'positive.*got \[\[1.0, 0.0\]\]'),
    (torch.tensor([[1., torch.inf]]), r'positive.*got \[\[1.0, inf\]\]'),
])
def test_bad_boxes(box, match):
    with pytest.raises(ValueError, match=f"Expected 'box' to have .*{match}"):
        place(make_batch(5, box=box), 8)


def test_flat_clouds_and_single_points():
    pos = torch.tensor([[0., 5.], [4., 5.], [1., 5. + 1e-9], [3., 3.]])
    data = Batch(pos=pos.double(), batch=torch.tensor([0, 0, 0, 1]), x=pos,
                 ptr=torch.tensor([0, 3, 4]), _num_graphs=2)
    where, cell = place(data, 11)  # of which eight cells are filled
    want = torch.tensor([[0.5, 0.0625], [1., 1.]]).double()
    assert torch.allclose(cell, want)
    want = torch.tensor([[1., 1.], [9., 1.], [3., 1.], [1., 1.]]).double()
    assert torch.allclose(where, want, atol=1e-7)


@pytest.mark.parametrize('box', [None, torch.tensor([[2., 1.5]])])
def test_derivatives(box):
    data = make_batch(4, 1, box=box)

    def there_and_back(pos, x):
        moved = copy.copy(data)
        moved.pos = pos
        raster = Raster.of(moved, 6)
        return raster.gather(raster.scatter(x).sin())

    inputs = data.pos.requires_grad_(), data.x.requires_grad_()
    assert gradcheck(there_and_back, inputs)
    assert gradgradcheck(there_and_back, inputs)


OPERATOR = {'num_modes': 4, 'num_layers': 2, 'margin': 2}
NETS = {
    'UNet': lambda **kwargs: UNet(2, 4, 3, num_levels=2, **kwargs),
    'DilResNet': lambda **kwargs: DilResNet(2, 4, 3, num_blocks=1,
                                            dilations=(1, 2), **kwargs),
    'FNO': lambda **kwargs: operator('FNO', 2, 4, 3, **OPERATOR | kwargs),
    'GINO': lambda **kwargs: operator('GINO', 2, 4, 3, **OPERATOR | kwargs),
}


@pytest.fixture(params=NETS)
def grid_net(request):
    torch.manual_seed(0)
    return NETS[request.param]


def test_order_of_points(grid_net):
    net = grid_net(resolution=8, dim=2)
    data = make_batch(30, dtype=torch.float)
    perm = torch.randperm(30)
    turned = data.clone()
    turned.x, turned.pos = data.x[perm], data.pos[perm]
    assert torch.allclose(net(turned), net(data)[perm], atol=1e-5)


def test_nor_do_clouds_mix_in_training(grid_net):
    net = grid_net(resolution=8, dim=2).train()
    data = make_batch(30, 1, 12, dtype=torch.float)
    alone = [net(Batch.from_data_list([data[i]])) for i in range(3)]
    assert torch.allclose(net(data), torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize('name', ['UNet', 'DilResNet', 'FNO'])
def test_moving_a_periodic_cloud_by_whole_cells(name):
    torch.manual_seed(0)
    net = NETS[name](resolution=8, dim=2)
    data = make_batch(30, box=torch.tensor([[2., 1.5]]), dtype=torch.float)
    moved = data.clone()  # by two, as a pooling of the first has it
    moved.pos = data.pos + data.box / 8 * torch.tensor([2, -4])
    assert torch.allclose(net(moved), net(data), atol=1e-4)
    del moved.box, data.box
    data.pos[0] = 9.  # another grid, another result
    assert not torch.allclose(net(moved), net(data), atol=1e-3)


def test_weights_are_all_that_is_saved(grid_net, tmp_path):
    r"""The package adds its arguments to them."""
    net, other = (grid_net(resolution=8, dim=2) for _ in range(2))
    torch.save(torch.nn.Sequential(net).state_dict(), tmp_path / 'net.pt')
    state = torch.load(tmp_path / 'net.pt')
    torch.nn.Sequential(other).load_state_dict(state)
    data = make_batch(30, dtype=torch.float)
    assert torch.equal(net(data), other(data))


@pytest.mark.parametrize('dim', [2, 3])
def test_gino_is_that_of_the_package(dim):
    torch.manual_seed(0)
    net = NETS['GINO'](resolution=8, dim=dim)
    points = Level(2 * torch.rand(40, dim), torch.arange(40) // 25, 2, None)
    x = torch.randn(40, 4)
    out = net.operate(x, points)
    nodes = net.nodes(points).pos[:8**dim].view(1, *[8] * dim, dim)
    for cloud in range(2):
        here = points.batch == cloud
        pos = points.pos[None, here]
        want = net.gino(pos, nodes, pos, x[None, here])[0]
        assert torch.allclose(out[here], want, atol=1e-5)
        assert want.std() > 1e-3


def test_dilated_convolutions_see_far_enough():
    r"""By the sum of the dilations and one node for each of two more."""
    net = DilResNet(2, 4, 3, num_blocks=2, dilations=(1, 2, 4), resolution=64,
                    dim=1).double()
    grid = torch.randn(1, 4, 64, dtype=torch.double, requires_grad=True)
    grad, = torch.autograd.grad(net.process(grid, False)[0, :, 32].sum(),
                                grid)
    seen = grad[0].abs().sum(0).nonzero().flatten()
    assert seen.min() == 32 - 16 and seen.max() == 32 + 16


def test_dilated_blocks_add_to_what_they_see():
    net = DilResNet(2, 4, 3, num_blocks=2, dilations=(1, 2), resolution=8,
                    dim=2)
    grid = torch.randn(1, 5, 8, 8)
    assert not torch.allclose(net.process(grid, True),
                              net.decoder(net.encoder(grid, True), True))
    for param in net.blocks.parameters():
        torch.nn.init.zeros_(param)
    assert torch.equal(net.process(grid, True),
                       net.decoder(net.encoder(grid, True), True))


def test_unet_sees_every_level_and_past_the_coarser_ones():
    net = UNet(2, 4, 3, num_levels=3, resolution=8, dim=2)
    grid = torch.randn(1, 5, 8, 8)

    def sees():  # by the gradients of the first weights of each level
        weights = [block.convs[0].conv.weight for block in net.encoder]
        grads = torch.autograd.grad(net.process(grid, False).square().sum(),
                                    weights, materialize_grads=True)
        return [bool(grad.abs().max() > 1e-6) for grad in grads]

    assert sees() == [True, True, True]
    for level, want in enumerate([[True, True, False], [True, False, False]]):
        torch.nn.init.zeros_(net.ups[level].weight)
        assert sees() == want


@pytest.mark.parametrize('name, kwargs, match', [
    ('UNet', {'resolution': 9}, "'resolution' to be a multiple of 2 .*got 9"),
    ('UNet', {'resolution': 8, 'dim': 4}, "'dim' to be 1, 2 or 3 .*got 4"),
    ('DilResNet', {'resolution': 3}, "'resolution' to be at least 4.*got 3"),
    ('FNO', {'resolution': 9}, "'resolution' to be even .*got 9"),
    ('FNO', {'resolution': 8, 'num_modes': 9}, "'num_modes' to be .*got 9"),
    ('FNO', {'resolution': 8, 'margin': 0}, "'margin' to be positive .*got 0"),
    ('GINO', {'resolution': 4}, "'resolution' to be at least 6.*got 4"),
    ('GINO', {'radius': 0.5}, "'radius' to be at least .*0.866.*got 0.5"),
])
def test_bad_arguments(name, kwargs, match):
    with pytest.raises(ValueError, match=match):
        NETS[name](**kwargs)
