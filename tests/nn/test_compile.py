import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from torch_geometric_erwin import (
    BallAttention,
    BallTree,
    ErwinTransformer,
    knn_graph,
)
from torch_geometric_erwin.ops.ball_attention import cpu

# The first has no size that is also a number of channels or dimensions: torch
# takes sizes that agree in the first call to agree always.
BATCHES = [[90, 3, 40, 41, 7, 30], [64, 64, 1, 63], [300, 7, 9, 20, 33],
           [128, 1, 1, 1, 1, 1], [57, 0, 88, 200]]


def cloud(sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return torch.randn(len(batch), 5), torch.randn(len(batch), 3), batch


@pytest.fixture(autouse=True)
def _reset():
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize('given', [True, False])
def test_model_compiles_once(given):
    r"""One graph without breaks for batches of any size; neighbors may be
    searched on the way.
    """
    model = ErwinTransformer(5, [8, 16], 2, depths=[2, 1], heads=[2, 2],
                             ball_sizes=[16, 8], strides=(4, ), mp_steps=1,
                             k=4, mlp_ratio=2)
    compiled = torch.compile(model, fullgraph=True, dynamic=True,
                             backend='aot_eager')
    for sizes in BATCHES:
        x, pos, batch = cloud(sizes)
        tree = model.build_tree(pos, batch).with_masks()
        edges = knn_graph(pos, 4, batch) if given else None
        statistics = {k: v.clone() for k, v in model.state_dict().items()}
        out = compiled(x, tree, edges)
        grads = torch.autograd.grad(out.square().sum(), model.parameters(),
                                    allow_unused=True)
        model.load_state_dict(statistics)
        eager = model(x, tree, edges)
        assert torch.allclose(out, eager, atol=1e-5)
        for a, b in zip(grads, torch.autograd.grad(
                eager.square().sum(), model.parameters(), allow_unused=True),
                strict=True):
            assert torch.allclose(a, b, atol=1e-4 * (1 + b.abs().max()))
    assert counters['stats']['unique_graphs'] == 1


@pytest.mark.parametrize('bias, native', [
    ('distance', True), ('distance', False), ('squared', False)])
def test_layer_through_the_whole_compiler(bias, native, monkeypatch):
    if not native:
        monkeypatch.setattr(cpu, 'serves', lambda *args: False)
    attn = BallAttention(8, 2, bias=bias)
    compiled = torch.compile(attn, fullgraph=True, dynamic=True)
    for sizes in BATCHES[:2]:
        x, pos, batch = cloud(sizes)
        x = torch.cat([x, x[:, :3]], dim=1)
        tree = BallTree.build(pos, batch, ball_size=16)
        assert torch.allclose(compiled(x, tree), attn(x, tree), atol=1e-5)
