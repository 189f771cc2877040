r"""The layers among PyG's: containers, heterogeneous graphs, summaries,
explainers.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.explain import (
    AttentionExplainer,
    Explainer,
    GNNExplainer,
)
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    HeteroConv,
    MessagePassing,
    Sequential,
    summary,
)
from torch_geometric.nn.models.basic_gnn import BasicGNN

from tests.nn.hard import hard_batch
from torch_geometric_erwin import (
    BallAttention,
    BallPooling,
    BallTree,
    BallUnpooling,
    ErwinConv,
    ErwinGPSConv,
    ErwinTransformer,
    knn_graph,
)
from torch_geometric_erwin.transforms import AddBallTree


def example(dim: int = 3) -> tuple[Tensor, Tensor, BallTree]:
    torch.manual_seed(0)
    pos, batch = hard_batch(dim, [1, 30, 70])
    tree = BallTree.build(pos, batch, ball_size=16, strides=(4, ))
    return torch.randn(len(pos), 8), knn_graph(pos, 4, batch), tree


def test_sequential():
    x, edge_index, tree = example()
    model = Sequential('x, edge_index, tree', [
        (GCNConv(8, 16), 'x, edge_index -> x'),
        (ErwinConv(16, 32, heads=4), 'x, tree -> x'),
        torch.nn.ReLU(inplace=True),
        (ErwinGPSConv(32, GCNConv(32, 32), heads=4),
         'x, edge_index, tree -> x'),
        (BallPooling(32, 16, 4),
         'x, tree, edge_index -> x1, coarse, coarse_index'),
        (GATConv(16, 16), 'x1, coarse_index -> x1'),
        (BallUnpooling(16, 32, 4), 'x1, coarse, x, tree -> x'),
    ])
    assert model(x, edge_index, tree).shape == (101, 32)
    assert 'ErwinConv(16, 32, heads=4, depth=2)' in str(model)


class ErwinGNN(BasicGNN):
    supports_edge_weight = False
    supports_edge_attr = False

    def init_conv(self, in_channels: int, out_channels: int,
                  **kwargs: Any) -> Any:
        return ErwinConv(in_channels, out_channels, **kwargs)


def test_stack():
    x, _, tree = example()
    model = ErwinGNN(8, 16, num_layers=3, out_channels=4, heads=2, jk='cat',
                     norm='layer_norm')
    assert model(x, tree).shape == (101, 4)
    model.reset_parameters()


def test_lazy():
    x, edge_index, tree = example()
    for layer, args in ((ErwinConv(-1, 16, 2), (tree, )),
                        (ErwinTransformer(-1, 16, 4, depths=2, heads=2,
                                          ball_sizes=16), ())):
        given = args or (layer.build_tree(tree.pos, tree.batch), edge_index)
        out = layer(x, *given)
        out.sum().backward()
        other = copy.deepcopy(layer)
        other.reset_parameters()
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x, *given), out)


def test_heterogeneous():
    torch.manual_seed(0)
    data = HeteroData()
    for kind, size, channels in (('atom', 50, 8), ('bead', 20, 4)):
        data[kind].pos = torch.randn(size, 3)
        data[kind].x = torch.randn(size, channels)
    data['bead', 'holds', 'atom'].edge_index = torch.stack([
        torch.randint(20, (50, )), torch.arange(50)])
    data = AddBallTree(ball_size=16)(data)
    batch = Batch.from_data_list([data, data])
    trees = {kind: BallTree.from_data(batch[kind])
             for kind in ('atom', 'bead')}
    conv = HeteroConv({
        ('atom', 'meets', 'atom'): ErwinConv(-1, 16, heads=2),
        ('bead', 'meets', 'bead'): ErwinConv(-1, 16, heads=2),
        ('bead', 'holds', 'atom'): GATConv((-1, -1), 16,
                                           add_self_loops=False),
    })
    out = conv(batch.x_dict, {
        ('atom', 'meets', 'atom'): trees['atom'],
        ('bead', 'meets', 'bead'): trees['bead'],
        **batch.edge_index_dict,
    })
    assert out['atom'].shape == (100, 16) and out['bead'].shape == (40, 16)
    assert torch.allclose(out['atom'][:50], out['atom'][50:], atol=1e-5)


def test_summary():
    x, edge_index, tree = example()
    model = ErwinTransformer(8, [16, 32], 2, depths=[2, 2], heads=[2, 4],
                             ball_sizes=[16, 8], strides=(4, ), mp_steps=1)
    tree = model.build_tree(tree.pos, tree.batch)
    text = summary(model, x, tree, edge_index, max_depth=6)
    assert '(attn)BallAttention' in text and '[101, 16]' in text
    attn = BallAttention(8, 2)
    assert '[101, 8]' in summary(attn, x, tree)
    assert not attn.is_watched()


class Classifier(torch.nn.Module):
    r"""Message passing on one graph, attention on the balls."""
    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        self.gcn = GCNConv(8, 16)
        self.attn1 = BallAttention(16, 2, dim=dim)
        self.attn2 = BallAttention(16, 2, dim=dim)
        self.lin = torch.nn.Linear(16, 3)

    def forward(self, x: Tensor, edge_index: Tensor,
                tree: BallTree) -> Tensor:
        x = self.gcn(x, edge_index).relu()
        x = x + self.attn1(x, tree, 0)
        x = x + self.attn2(x, tree, 1)
        return self.lin(x)


class Attentive(Classifier):
    r"""Attention alone."""
    def forward(self, x: Tensor, edge_index: Tensor,
                tree: BallTree) -> Tensor:
        x = torch.cat([x, x], dim=1)
        return self.lin(self.attn2(self.attn1(x, tree, 0), tree, 1))


def strong(model: torch.nn.Module) -> torch.nn.Module:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def explain(model: torch.nn.Module, algorithm: Any, x: Tensor,
            edge_index: Tensor, tree: BallTree, **kwargs: Any) -> Any:
    node_mask = 'object' if isinstance(algorithm, GNNExplainer) else None
    explainer = Explainer(
        model, algorithm, explanation_type='model', node_mask_type=node_mask,
        edge_mask_type='object', model_config={
            'mode': 'multiclass_classification', 'task_level': 'node',
            'return_type': 'raw'})
    return explainer(x, edge_index, tree=tree, **kwargs)


def test_gnn_explainer_of_a_hybrid():
    r"""The mask is of the graph's edges; attention goes on as it is."""
    x, edge_index, tree = example()
    model = strong(Classifier())
    before = model(x, edge_index, tree)
    explanation = explain(model, GNNExplainer(epochs=5), x, edge_index, tree,
                          index=50)
    assert explanation.edge_mask.shape == (edge_index.size(1), )
    assert explanation.edge_mask.max() > 0
    assert explanation.node_mask.max() > 0
    assert torch.equal(model(x, edge_index, tree), before)


@pytest.mark.parametrize('partition', [None, 0])
def test_gnn_explainer_of_attention(partition):
    r"""Only what can reach a point explains it, layer by layer."""
    x, _, tree = example()
    edges = tree.edge_index(partition)
    explanation = explain(strong(Attentive()), GNNExplainer(epochs=5), x,
                          edges, tree, index=50)
    mask = explanation.edge_mask
    assert mask.shape == (edges.size(1), ) and mask.max() > 0
    number = tree.edge_index().size(1)
    if partition is None:  # the second layer attends in the second turn
        last = tree.edge_index(1)[1]
        used = mask[number:] > 0
        assert used.any() and (last[used] == 50).all()
        sources = set(tree.edge_index(1)[0][used].tolist())
    else:
        cut = tree.partition(1).inverse // 16
        sources = set(torch.nonzero(cut == cut[50]).view(-1).tolist())
    used = mask[:number] > 0
    assert set(tree.edge_index(0)[1][used].tolist()) <= sources


def test_masks_change_what_they_mask():
    r"""A mask of zeros in the first orientation cuts its edges only."""
    x, _, tree = example()
    model = strong(Attentive())
    edges = tree.edge_index(None)
    loop = edges[0] != edges[1]
    number = tree.edge_index().size(1)
    plain, wide = model(x, edges, tree), torch.cat([x, x], dim=1)

    def masked(mask: Tensor, loop: Tensor) -> Tensor:
        for attn in (model.attn1, model.attn2):
            attn.explain, attn._edge_mask, attn._loop_mask = True, mask, loop
            attn._apply_sigmoid = False
        return model(x, edges, tree)

    ones = torch.ones(2 * number)
    assert torch.allclose(masked(ones, loop), plain, atol=1e-5)
    half = torch.cat([torch.zeros(number), ones[number:]])
    silent = model.attn1.lin_out.bias.expand_as(wide)
    out = masked(half, loop)
    for attn in (model.attn1, model.attn2):
        attn.explain = False
    assert torch.allclose(model.lin(model.attn2(silent, tree, 1)), out,
                          atol=1e-5)
    # The first orientation's edges alone, and those of another graph:
    assert torch.allclose(masked(half[:number], loop[:number]), out,
                          atol=1e-5)
    other = torch.ones(number, dtype=torch.bool)
    assert torch.allclose(masked(half[:number], other), plain, atol=1e-5)


@pytest.mark.parametrize('partition', [None, 0])
def test_attention_explainer(partition):
    x, _, tree = example()
    model = strong(Attentive())
    edges = tree.edge_index(partition)
    explanation = explain(model, AttentionExplainer(), x, edges, tree)
    wide = torch.cat([x, x], dim=1)
    out, (_, first) = model.attn1(wide, tree, 0,
                                  return_attention_weights=True)
    _, (_, second) = model.attn2(out, tree, 1, return_attention_weights=True)
    weights = torch.cat([first, second]).max(1).values[:edges.size(1)]
    hard = explanation.edge_mask > 0
    assert torch.allclose(explanation.edge_mask[hard], weights[hard],
                          atol=1e-6)
    assert hard.float().mean() > 0.9


def test_layers_are_message_passing():
    assert issubclass(BallAttention, MessagePassing)
    conv = ErwinConv(8, 8, 2)
    kinds = [m for m in conv.modules() if isinstance(m, MessagePassing)]
    assert len(kinds) == 2


def test_data_loader_to_model():
    from torch_geometric.loader import DataLoader
    transform = AddBallTree(ball_size=[16, 8], strides=(4, ))
    data = [transform(Data(x=torch.randn(n, 8), pos=torch.randn(n, 3)))
            for n in (40, 1, 100)]
    model = ErwinTransformer(8, [16, 32], 2, depths=[2, 2], heads=[2, 4],
                             ball_sizes=[16, 8], strides=(4, )).eval()
    batch = next(iter(DataLoader(data, batch_size=3)))
    out = model(batch.x, BallTree.from_data(batch))
    other = model(batch.x, pos=batch.pos, batch=batch.batch)
    assert torch.allclose(out, other, atol=1e-6)
