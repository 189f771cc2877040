r"""Attention without content, without distances, without positions."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from benchmarks.experiments.nets import EquivariantHybrid, Erwin, Hybrid
from benchmarks.experiments.nets.ablation import restrict
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.nn import BallAttention

TINY = {'in_channels': 2, 'hidden_channels': [8, 8], 'out_channels': 3,
        'depths': [1, 1], 'heads': [2, 2], 'ball_sizes': [16, 16],
        'strides': [4]}


@pytest.fixture
def layer():
    torch.manual_seed(0)
    attn = BallAttention(8, heads=2)
    for weight in attn.parameters():
        torch.nn.init.normal_(weight)
    return attn


@pytest.fixture
def cloud():
    torch.manual_seed(1)
    pos = torch.rand(64, 3)
    return torch.randn(64, 8), pos, BallTree.build(pos, ball_size=16)


def weights(layer, x, tree):
    _, (edges, alpha) = layer(x, tree, 0, return_attention_weights=True)
    return edges, alpha


def test_what_weights_depend_on(layer, cloud):
    x, pos, tree = cloud
    edges, alpha = weights(layer, x, tree)
    assert not torch.allclose(weights(layer, -x, tree)[1], alpha)

    restrict(layer, 'distance')
    alpha = weights(layer, x, tree)[1]
    assert torch.equal(weights(layer, -x, tree)[1], alpha)
    distance = (pos[edges[0]] - pos[edges[1]]).norm(dim=1)
    near = distance < 0.1
    assert alpha[near].mean() > 1.5 * alpha[~near].mean()

    restrict(layer, 'mean')
    assert torch.allclose(weights(layer, x, tree)[1],
                          torch.full_like(alpha, 1 / 16))


def test_relative_positions(layer, cloud):
    x, pos, _ = cloud
    restrict(layer, 'mean', relative_positions=False)
    other = BallTree.build(torch.rand(64, 3), ball_size=64)
    one_ball = BallTree.build(pos, ball_size=64)
    # All that is left is the mean of a ball, wherever its points are.
    assert torch.allclose(layer(x, one_ball), layer(x, other), atol=1e-5)


@pytest.mark.parametrize('make', [
    lambda: Erwin(**TINY, attention='mean', relative_positions=False),
    lambda: Hybrid(**TINY, mp_steps=[1, 1], decoder_mp_steps=[1],
                   decoder_depths=[1], attention='mean'),
])
def test_training_brings_nothing_back(make):
    torch.manual_seed(0)
    net = make()
    optimizer = torch.optim.AdamW(net.parameters(), 0.1, weight_decay=0.1)
    pos = torch.rand(40, 3)
    data = Batch.from_data_list([Data(x=torch.randn(40, 2), pos=pos)])
    for _ in range(2):
        net(data).square().mean().backward()
        optimizer.step()
    for attn in net.modules():
        if isinstance(attn, BallAttention):
            weight = attn.lin_qkv.weight
            assert not weight[:16].any() and weight[16:].all()
            assert not attn.sigma.any()
            assert bool(attn.lin_pos.weight.any()) == isinstance(net, Hybrid)


@pytest.mark.parametrize('num_slices', [0, 4])
def test_all_points_of_a_cloud_attend(num_slices):
    torch.manual_seed(0)
    net = Hybrid(**{**TINY, 'depths': [0, 1]}, mp_steps=[1, 1],
                 decoder_mp_steps=[1], decoder_depths=[0], k=4,
                 num_slices=num_slices)
    data = Batch.from_data_list([
        Data(x=torch.randn(n, 2), pos=torch.rand(n, 3)) for n in (300, 40)])
    data.x.requires_grad_()
    net(data)[0].sum().backward()
    reached = data.x.grad.abs().sum(dim=1) > 0
    assert reached[:300].all() == bool(num_slices)
    assert not reached[300:].any()


def test_errors():
    with pytest.raises(ValueError, match="'attention'"):
        Erwin(**TINY, attention='none')
    with pytest.raises(ValueError, match='EquivariantHybrid'):
        EquivariantHybrid(**TINY, mp_steps=[1, 1], decoder_mp_steps=[1],
                          decoder_depths=[1], attention='mean')
    with pytest.raises(ValueError, match="'num_slices'"):
        EquivariantHybrid(**TINY, mp_steps=[1, 1], decoder_mp_steps=[1],
                          decoder_depths=[1], num_slices=4)
