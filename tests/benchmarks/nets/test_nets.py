from functools import partial

import pytest
import torch
from torch_geometric.data import Batch, Data

from benchmarks.experiments.nets import (
    FLARE,
    GAT,
    GPS,
    MPNN,
    MSPT,
    UPT,
    DilResNet,
    EquivariantHybrid,
    Erwin,
    GraphViT,
    Hybrid,
    MeshGraphNet,
    PointNet2,
    PointTransformer,
    PointTransformerV3,
    Transolver,
    UNet,
    ViSNet,
)
from benchmarks.experiments.nets.gate_points import GatePoints
from benchmarks.experiments.nets.graph import mesh_graph, neighbor_graph
from benchmarks.experiments.regression import Regression
from tests.benchmarks.nets.operators import operator
from tests.benchmarks.tiny import TinyClouds, to_double

HYBRID = {'mp_steps': [1, 1], 'depths': [1, 1], 'heads': [1, 2],
          'ball_sizes': [8, 8], 'strides': [2], 'decoder_mp_steps': [1],
          'decoder_depths': [1], 'k': 4}
NETS = {
    'UPT': lambda out: UPT(2, 8, out, depths=(1, 1), heads=2, num_latents=4,
                           stride=4, k=4),
    'DilResNet': lambda out: DilResNet(2, 4, out, num_blocks=1,
                                       dilations=(1, 2), resolution=8),
    'EquivariantHybrid': lambda out: EquivariantHybrid(2, [8, 16], out,
                                                       **HYBRID),
    'Erwin': lambda out: Erwin(2, [8, 16], out, depths=[1, 1], heads=[1, 2],
                               ball_sizes=[8, 8], strides=[2], k=4),
    'FLARE': lambda out: FLARE(2, 8, out, num_layers=2, heads=2, num_latents=4,
                               mlp_layers=1),
    'GAT': lambda out: GAT(2, 8, out, num_layers=2, heads=2, k=4),
    'GPS': lambda out: GPS(2, 8, out, num_layers=2, k=4, heads=2),
    'GraphViT': lambda out: GraphViT(2, 8, out, num_layers=2, heads=2,
                                     token_channels=8, num_blocks=1,
                                     ball_size=8, k=4),
    'Hybrid': lambda out: Hybrid(2, [8, 16], out, **HYBRID),
    'MeshGraphNet': lambda out: MeshGraphNet(2, 8, out, num_layers=2, k=4),
    'MPNN': lambda out: MPNN(2, 8, out, num_layers=2, k=4),
    'MSPT': lambda out: MSPT(2, 8, out, num_layers=2, heads=2, ball_size=8),
    'PointNet2': lambda out: PointNet2(2, [8, 16], out, strides=[2, 2], k=4),
    'PointTransformer': lambda out: PointTransformer(2, 8, out, num_layers=2,
                                                     k=4),
    'PointTransformerV3': lambda out: PointTransformerV3(
        2, 8, out, num_layers=4, heads=2, patch_size=8, k=4),
    'Transolver': lambda out: Transolver(2, 16, out, num_layers=2, heads=2),
    'UNet': lambda out: UNet(2, 4, out, num_levels=2, resolution=8),
}
# These return nothing but vectors.
VECTOR_NETS = {
    'GatePoints': lambda out: GatePoints(2, 8, 2, cutoff=1., k=4),
    'ViSNet': lambda out: ViSNet(2, 8, 2, cutoff=1., heads=2, k=4),
}
MESH_NETS = ['GAT', 'GraphViT', 'MeshGraphNet']
# The waves of these are single precision.
OPERATORS = {
    'FNO': lambda out: operator('FNO', 2, 8, out, num_modes=4, num_layers=1,
                                resolution=8, margin=1),
    'GINO': lambda out: operator('GINO', 2, 8, out, num_modes=4, num_layers=1,
                                 resolution=8),
}
EQUIVARIANT = {'EquivariantHybrid': NETS['EquivariantHybrid'], **VECTOR_NETS}


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(0)
    return NETS[request.param]


@pytest.fixture(params=[*NETS, *VECTOR_NETS, *OPERATORS])
def any_net(request):
    torch.manual_seed(0)
    return (NETS | VECTOR_NETS | OPERATORS)[request.param]


@pytest.fixture(params=[2., None], ids=['periodic', 'open'])
def clouds(request):
    data = TinyClouds(box=request.param)
    data.setup()
    return data.clouds['train'][:3]


def test_clouds_do_not_mix(any_net, clouds):
    net = any_net(3).eval()
    together = net(Batch.from_data_list(clouds))
    assert together.shape == (90, 3) and together.std() > 0
    for i, data in enumerate(clouds):
        alone = net(Batch.from_data_list([data]))
        assert torch.allclose(together[30 * i:30 * (i + 1)], alone, atol=1e-5)


def test_points_that_are_alike_are_told_apart(any_net, clouds):
    batch = to_double(Batch.from_data_list(clouds))
    batch.x = torch.ones_like(batch.x)
    out = any_net(3).double().eval()(batch)[:30]
    assert (out.std(dim=0) > 1e-6).all()


def test_moving_a_cloud_changes_nothing(any_net, clouds):
    net = any_net(3).double().eval()
    data = to_double(Batch.from_data_list(clouds))
    moved = data.clone()
    moved.pos = data.pos + torch.tensor([0.1, 0.2, -0.3]).double()
    if 'box' in data:  # any image of a point is as good as the next
        image = torch.randint(-1, 2, data.pos.shape)
        moved.pos = data.pos + image * data.box[data.batch]
    assert torch.allclose(net(data), net(moved), atol=1e-8)


@pytest.mark.parametrize('name', MESH_NETS)
def test_neighbors_come_on_top_of_the_edges_of_a_mesh(name, clouds):
    torch.manual_seed(0)
    net, batch = NETS[name](3).double().eval(), Batch.from_data_list(clouds)
    batch, edge_index = to_double(batch), neighbor_graph(batch, 4)
    out = net(batch)
    batch.edge_index = edge_index[:, ::2]
    assert torch.allclose(net(batch), out)  # no edge counts twice
    net.k = 0
    assert not torch.allclose(net(batch), out, atol=1e-4)
    batch.edge_index = edge_index
    assert torch.allclose(net(batch), out)
    del batch.edge_index
    with pytest.raises(ValueError, match=r"'k' to be positive .*\(got 0\)"):
        net(batch)


def test_neighbors_cross_the_gaps_of_a_mesh():
    pos = torch.tensor([[0.], [2.], [3.], [5.]])
    mesh = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    batch = Batch.from_data_list([Data(pos=pos, edge_index=mesh)] * 2)
    assert torch.equal(mesh_graph(batch, 0), batch.edge_index)
    edges = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    assert torch.equal(mesh_graph(batch, 1), torch.cat([edges, edges + 4], 1))


@pytest.mark.parametrize('cls, hidden', [
    (FLARE, 8), (partial(GAT, k=16), 8), (partial(GraphViT, k=16), 8),
    (MSPT, 8), (partial(MeshGraphNet, k=16), 8), (PointNet2, [8, 8, 8]),
    (PointTransformerV3, 8), (Transolver, 8), (UPT, 8), (DilResNet, 4),
    (UNet, 4)],
    ids=lambda arg: getattr(getattr(arg, 'func', arg), '__name__', ''))
@pytest.mark.parametrize('box', [None, torch.tensor([[1., 2.]])])
def test_in_the_plane_clouds_may_differ_in_size(cls, hidden, box):
    torch.manual_seed(0)
    net = cls(2, hidden, 3, dim=2).eval()
    clouds = [Data(x=torch.randn(size, 2), pos=torch.rand(size, 2), box=box)
              for size in (40, 1, 300)]
    out = net(Batch.from_data_list(clouds))
    assert out.shape == (341, 3) and out.isfinite().all()
    alone = torch.cat([net(Batch.from_data_list([data])) for data in clouds])
    assert torch.allclose(out, alone, atol=1e-5)


@pytest.mark.parametrize('name', EQUIVARIANT)
def test_what_is_equivariant_turns_along(name):
    data = TinyClouds(box=None)
    data.setup()
    net = EQUIVARIANT[name](3).double().eval()
    batch = to_double(Batch.from_data_list(data.clouds['train'][:3]))
    turned = batch.clone()
    turn = torch.linalg.qr(torch.randn(3, 3).double())[0]
    turned.pos = batch.pos @ turn
    assert torch.allclose(net(turned), net(batch) @ turn, atol=1e-9)


@pytest.mark.parametrize('name', ['EquivariantHybrid', 'Hybrid'])
def test_trees_differ_in_training_alone(name, clouds):
    torch.manual_seed(0)
    net, batch = NETS[name](3), Batch.from_data_list(clouds)
    first = net(batch)
    assert any((net(batch) - first).abs().max() > 1e-3 for _ in range(5))
    net.eval()
    assert torch.equal(net(batch), net(batch))


@pytest.mark.parametrize('cls', [FLARE, GraphViT, MSPT])
def test_heads_divide_channels(cls):
    with pytest.raises(ValueError, match=r"'heads' to divide .*\(got 5\)"):
        cls(2, 8, 3, heads=5)


def test_vectors_have_as_many_components_as_positions():
    with pytest.raises(ValueError, match="'out_channels' to be 1"):
        NETS['EquivariantHybrid'](2)


def test_neighbors_across_the_border_count(any_net):
    data = TinyClouds()
    data.setup()
    batch = Batch.from_data_list(data.clouds['train'])
    net = any_net(3).eval()
    periodic = net(batch)
    del batch.box
    assert not torch.allclose(net(batch), periodic, atol=1e-4)


def test_forces_and_what_they_learn_by(net, clouds):
    torch.manual_seed(0)
    module = Regression(net(1), conservative=True).double()
    module.net.eval()
    batch = to_double(Batch.from_data_list(clouds))

    def loss() -> torch.Tensor:
        return module.loss(module(batch), batch)

    force = module(batch)
    assert force.isfinite().all() and force.abs().max() > 0
    loss().backward()
    name, param = max(module.net.named_parameters(), key=lambda item: (
        0 if item[1].grad is None else item[1].grad.abs().max()))
    index = param.grad.abs().argmax()
    got, step = param.grad.flatten()[index].item(), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            param.view(-1)[index] += sign * step
        values.append(loss().item())
        with torch.no_grad():
            param.view(-1)[index] -= sign * step
    assert got == pytest.approx((values[0] - values[1]) / (2 * step),
                                rel=1e-3), name


@pytest.mark.parametrize('name', [*NETS, *OPERATORS])
def test_mixed_precision(name, clouds):
    net = (NETS | OPERATORS)[name]
    batch = Batch.from_data_list(clouds)
    for out in (1, 3):
        module = Regression(net(out), conservative=out == 1)
        with torch.autocast('cpu', torch.bfloat16):
            loss = module.loss(module(batch), batch)
        loss.backward()
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        assert grads and all(g.isfinite().all() for g in grads)
