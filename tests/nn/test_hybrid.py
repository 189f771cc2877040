r"""What the layers are for: seeing far, among layers that do not."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATConv, GCNConv, MessagePassing
from torch_geometric.utils import k_hop_subgraph

from torch_geometric_erwin import (
    BallPooling,
    BallTree,
    BallUnpooling,
    ErwinConv,
    ErwinTransformer,
    knn_graph,
)
from torch_geometric_erwin.nn import MPNNConv
from torch_geometric_erwin.transforms import AddBallGraph, AddBallTree


class Hybrid(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gcn = GCNConv(3, 32)
        self.erwin = ErwinConv(32, 32, heads=4)
        self.gat = GATConv(32, 8, heads=4)
        self.pool = BallPooling(32, 64, stride=4)
        self.coarse_gcn = GCNConv(64, 64)
        self.unpool = BallUnpooling(64, 32, stride=4)
        self.lin = torch.nn.Linear(32, 1)

    def forward(self, x: Tensor, edge_index: Tensor,
                tree: BallTree) -> Tensor:
        x = self.gcn(x, edge_index).relu()
        x = self.erwin(x, tree)
        x = self.gat(x, edge_index).relu()
        x1, tree1, edge_index1 = self.pool(x, tree, edge_index)
        x1 = self.coarse_gcn(x1, edge_index1).relu()
        x = self.unpool(x1, tree1, x, tree)
        return self.lin(x)


def test_hybrid_overfits():
    r"""Four clouds, and for each point the distance to its cloud's farthest
    point, which no neighbor knows.
    """
    torch.manual_seed(0)
    transforms = [AddBallTree(ball_size=[32, 8], strides=(4, )),
                  AddBallGraph(k=6)]
    clouds = []
    for size in (40, 100, 65, 7):
        pos = torch.randn(size, 3)
        far = torch.cdist(pos, pos).max(1).values
        data = Data(x=pos.clone(), pos=pos, y=far)
        for transform in transforms:
            data = transform(data)
        clouds.append(data)
    batch = Batch.from_data_list(clouds)
    tree = BallTree.from_data(batch)
    target = (batch.y - batch.y.mean()) / batch.y.std()
    model = Hybrid()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        out = model(batch.x, batch.edge_index, tree).view(-1)
        loss = (out - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.01


def reached(x: Tensor, out: Tensor, point: int) -> Tensor:
    r"""Which inputs the output at one point depends on."""
    grad, = torch.autograd.grad(out[point].square().sum(), x,
                                retain_graph=True)
    return grad.abs().sum(1) > 0


def test_receptive_fields():
    r"""Two levels reach the whole cloud; message passing its hops."""
    torch.manual_seed(0)
    pos = torch.rand(2000, 3, dtype=torch.float64)
    edge_index = knn_graph(pos, 4)
    x = torch.randn(2000, 8, dtype=torch.float64, requires_grad=True)
    model = ErwinTransformer(8, [8, 16], depths=[2, 2], heads=[2, 2],
                             ball_sizes=[256, 128], strides=(8, ),
                             mp_steps=0).double().eval()
    steps = torch.nn.ModuleList([MPNNConv(8) for _ in range(3)]).double()
    for module in (model, steps):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    for module in model.modules():  # far points count little but do count
        if hasattr(module, 'sigma'):
            torch.nn.init.constant_(module.sigma, 0.5)
    tree = model.build_tree(pos)
    far, near = model(x, tree), x
    for step in steps:
        near = step(near, edge_index, tree)
    for point in (0, 777, 1999):
        assert reached(x, far, point).all()
        hops = k_hop_subgraph(point, 3, edge_index)[0]
        seen = reached(x, near, point)
        assert torch.equal(torch.nonzero(seen).view(-1), hops.sort().values)
        assert len(hops) < 500


GPS = '''
import resource
import torch
from torch_geometric.nn import GCNConv
from torch_geometric_erwin import BallTree, ErwinGPSConv, knn_graph

n = 100_000
pos, x = torch.rand(n, 3), torch.randn(n, 64, requires_grad=True)
layer = ErwinGPSConv(64, GCNConv(64, 64), 4)
out = layer(x, knn_graph(pos, 8), BallTree.build(pos))
out.square().mean().backward()
assert x.grad.isfinite().all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'),
                    reason='measures memory as Linux does')
def test_gps_in_four_gigabytes():
    r"""Forward and backward at 100,000 nodes, program and all."""
    done = subprocess.run([sys.executable, '-c', GPS], text=True, check=True,
                          capture_output=True)
    assert int(done.stdout) < 4 * 10**9


def test_attention_is_message_passing_on_the_balls():
    r"""A layer of PyG's, on the balls as a graph, sees what ours sees."""
    pos = torch.rand(50, 2)
    tree = BallTree.build(pos, ball_size=16)
    layer = GATConv(4, 4, add_self_loops=False)
    assert isinstance(layer, MessagePassing)
    x = torch.randn(50, 4, requires_grad=True)
    ball = tree.partition(0).inverse // 16
    seen = reached(x, layer(x, tree.edge_index()), 7)
    assert torch.equal(seen, ball == ball[7])
