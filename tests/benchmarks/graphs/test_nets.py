import pytest
import torch
from torch_geometric.data import Batch, Data

from benchmarks.graphs.data import RingTransferData, Task
from benchmarks.graphs.nets import GraphNet
from benchmarks.graphs.nets.graph_net import count
from benchmarks.graphs.sweep import NETS
from torch_geometric_erwin.datasets import RingTransfer
from torch_geometric_erwin.transforms import AddLaplacianPos

LOCAL = {'GCN', 'GAT', 'GIN'}
ON_TREES = {'ErwinGPS', 'GCN/Erwin hybrid'}


def never(out, y):
    raise AssertionError('nobody asked for a score')


def make_task(level='node', edges=None, in_channels=5):
    return Task({}, level, 'cross_entropy', in_channels, 3, 'accuracy', True,
                never, edges)


def make_net(name, task=None, dim=4, **kwargs):
    torch.manual_seed(0)
    net = NETS[name](**{'num_layers': 3, 'ball_size': 16, **kwargs})
    net.build(task or make_task(), dim)
    return net


def rings(tmp_path, num_nodes, num_graphs=3):
    return RingTransfer(str(tmp_path), num_graphs=num_graphs,
                        num_nodes=num_nodes,
                        pre_transform=AddLaplacianPos(4))


@pytest.mark.parametrize('name', NETS)
@pytest.mark.parametrize('task', [
    make_task(), make_task('graph', [5, 6, 2], [119, 5, 12, 12, 10])])
@pytest.mark.parametrize('budget', [30_000, 500_000])
def test_budget(name, task, budget):
    net = make_net(name, task, budget=budget)
    assert count(net) == pytest.approx(budget, rel=0.2)
    # One more channel for each head is no closer.
    channels = net.head.channel_list[0]
    for other in (channels - net.heads, channels + net.heads):
        wider = make_net(name, task, hidden_channels=other)
        assert (abs(count(wider) - budget) >= abs(count(net) - budget))


# PyG's performer counts the padding of smaller graphs as nodes to look at.
@pytest.mark.parametrize('name', [name for name in NETS
                                  if name != 'GPS, performer'])
@pytest.mark.parametrize('level', ['node', 'graph'])
@pytest.mark.parametrize('edges', [None, 3, [4, 2]])
def test_graphs_do_not_mix(name, level, edges):
    torch.manual_seed(1)
    graphs = []
    for nodes in (1, 30, 7, 64):
        index = torch.randint(nodes, (2, 2 * nodes))
        graph = Data(x=torch.randn(nodes, 5), edge_index=index,
                     pos=torch.randn(nodes, 4))
        if isinstance(edges, list):
            graph.edge_attr = torch.randint(2, (2 * nodes, 2))
        elif edges is not None:
            graph.edge_attr = torch.randn(2 * nodes, edges)
        graphs.append(graph)
    net = make_net(name, make_task(level, edges)).eval()
    out = net(Batch.from_data_list(graphs))
    alone = torch.cat([net(Batch.from_data_list([g])) for g in graphs])
    assert out.shape == ((102, 3) if level == 'node' else (4, 3))
    torch.testing.assert_close(out, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', ['GAT', 'GIN', 'GPS', 'GPS, performer',
                                  'ErwinGPS'])
def test_edges_count(name):
    net = make_net(name, make_task(edges=3)).eval()
    graph = Batch.from_data_list([Data(
        x=torch.randn(9, 5), edge_index=torch.randint(9, (2, 30)),
        pos=torch.randn(9, 4), edge_attr=torch.randn(30, 3))])
    out = net(graph)
    graph.edge_attr = torch.randn(30, 3)
    assert not torch.allclose(out, net(graph))


@pytest.mark.parametrize('name', NETS)
def test_who_sees_how_far(name, tmp_path):
    r"""Three layers of message passing see three hops; two blocks in turn of
    balls of 16, more than half of a ring of 60.
    """
    net = make_net(name).eval()
    batch = Batch.from_data_list([rings(tmp_path, 60)[0]])
    x = batch.x = batch.x.requires_grad_()
    target = batch.mask.nonzero().item()
    grad, = torch.autograd.grad(net(batch)[target].sum(), x)
    seen = grad.abs().sum(dim=1).nonzero().flatten()
    hops = torch.minimum((seen - target) % 60, (target - seen) % 60)
    if name in LOCAL:
        assert hops.max() == 3
    else:
        assert hops.max() == 30


@pytest.mark.parametrize('name', NETS)
def test_positions(name, tmp_path):
    if name in ON_TREES:
        with pytest.raises(ValueError, match=r"'data.positions'"):
            make_net(name, dim=0)
        return
    net = make_net(name, dim=0)
    batch = Batch.from_data_list(list(rings(tmp_path, 12)))
    assert net(batch).shape == (36, 3)


def test_data_know_their_positions(tmp_path):
    for positions, dim in ((None, 0), (AddLaplacianPos(7), 7)):
        data = RingTransferData(root=str(tmp_path), num_train=2, num_val=1,
                                num_test=1, positions=positions)
        data.setup()
        assert data.dim == dim


def test_builds_once():
    net = make_net('GCN', budget=20_000)
    before = net.head
    net.build(make_task(), 4)
    assert net.head is before


def test_errors():
    with pytest.raises(ValueError, match=r"'num_layers'.*got 0"):
        GraphNet(num_layers=0)
    with pytest.raises(ValueError, match=r"'heads'.*got -1"):
        GraphNet(heads=-1)


def test_dropout_is_used():
    net = make_net('GCN/Erwin hybrid', dropout=0.5)
    rates = {m.p for m in net.modules() if isinstance(m, torch.nn.Dropout)}
    assert 0.5 in rates
