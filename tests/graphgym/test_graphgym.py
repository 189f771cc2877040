import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import grid

pytest.importorskip('yacs')

from torch_geometric.graphgym import register
from torch_geometric.graphgym.cmd_args import parse_args
from torch_geometric.graphgym.config import cfg, set_cfg
from torch_geometric.graphgym.loader import create_loader
from torch_geometric.graphgym.model_builder import GraphGymModule
from torch_geometric.graphgym.models.layer import LayerConfig

from benchmarks.graphs import graphgym as experiment
from torch_geometric_erwin import BallTree, ErwinConv, ErwinGPSConv
from torch_geometric_erwin.graphgym import (
    ball_pooling,
    ball_tree,
    forward_pass,
    loader,
)
from torch_geometric_erwin.graphgym.forward_pass import find_tree
from torch_geometric_erwin.graphgym.position import POSITIONS
from torch_geometric_erwin.transforms import AddBallTree

CONFIGS = sorted(
    (Path(__file__).parents[2] / 'benchmarks/configs/graphgym').glob('*.yaml'))
SIZES = (25, 1, 9, 40)


@pytest.fixture(autouse=True)
def isolated():
    r"""GraphGym's configuration and its logging are global."""
    saved, handlers = cfg.clone(), logging.root.handlers[:]
    level, threads = logging.root.level, torch.get_num_threads()
    set_cfg(cfg)
    cfg.accelerator = 'cpu'
    cfg.erwin.ball_size = 8
    cfg.erwin.heads = 2
    yield
    cfg.clear()
    cfg.update(saved)
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    torch.set_num_threads(threads)


def make_graph(nodes, channels=6, dim=3):
    edge_index = torch.randint(max(nodes, 1), (2, 3 * nodes))
    return Data(x=torch.randn(nodes, channels), pos=torch.rand(nodes, dim),
                edge_index=edge_index, y=torch.tensor([nodes % 3]))


def make_batch(sizes=SIZES, **kwargs):
    torch.manual_seed(1)
    return Batch.from_data_list([make_graph(n, **kwargs) for n in sizes])


def make_layer(name, dim_in=6, dim_out=6):
    torch.manual_seed(2)
    return register.layer_dict[name](LayerConfig(dim_in=dim_in,
                                                 dim_out=dim_out))


def build(batch, **kwargs):
    return BallTree.build(batch.pos, batch.batch, ptr=batch.ptr,
                          **{'ball_size': 8, **kwargs})


def test_registers():
    for name in ('erwin_conv', 'erwin_gps_conv', 'hybrid_erwin_conv',
                 'gcn_erwin_conv'):
        assert name in register.layer_dict
    assert register.pooling_dict['ball_pooling'] is ball_pooling
    assert 'BallTree' in register.node_encoder_dict
    assert 'erwin' in register.loader_dict
    del cfg['erwin']
    set_cfg(cfg)
    assert cfg.erwin.ball_size == 128


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_trains(path, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [
        'graphgym', '--cfg', str(path), '--repeat', '2', 'out_dir',
        str(tmp_path), 'optim.max_epoch', '5', 'accelerator', 'cpu'])
    experiment.main(parse_args())
    for seed in ('0', '1'):
        run = tmp_path / path.stem / seed
        stats = {split: [json.loads(line) for line in
                         (run / split / 'stats.json').read_text().split('\n')
                         if line] for split in ('train', 'val', 'test')}
        assert [row['epoch'] for row in stats['val']] == [0, 1, 2, 3, 4]
        loss = [row['loss'] for row in stats['train']]
        assert loss[-1] < 0.9 * loss[0]
        assert 0 <= stats['test'][-1]['accuracy'] <= 1
    best = tmp_path / path.stem / 'agg' / 'val' / 'best.json'
    assert 'accuracy_std' in json.loads(best.read_text())


@pytest.mark.parametrize('stored', [False, True])
@pytest.mark.parametrize('depth', [1, 2, 3])
def test_erwin_conv_takes_orientations_in_turn(depth, stored):
    cfg.erwin.depth = depth
    cfg.erwin.rotations = rotations = [0., 45., 20.]
    layers = [make_layer('erwin_conv') for _ in range(3)]
    batch = make_batch()
    tree = build(batch, rotations=rotations)
    if stored:
        transform = AddBallTree(ball_size=8, rotations=rotations)
        batch = Batch.from_data_list(
            [transform(data) for data in batch.to_data_list()])
    expected = batch.x
    for turn, layer in enumerate(layers):
        for i, block in enumerate(layer.model.blocks):
            expected = block(expected, tree, (turn * depth + i) % 3)
    first = batch.x
    for _ in range(2):  # a layer keeps its turn
        batch.x = first
        for layer in layers:
            batch = layer(batch)
        torch.testing.assert_close(batch.x, expected)


def test_erwin_conv_projects_and_trains():
    layer, batch = make_layer('erwin_conv', 6, 4), make_batch()
    expected = layer.model(batch.x, build(batch))
    out = layer(batch).x
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize('local', ['gcnconv', 'gatconv', 'ginconv',
                                   'generalconv'])
@pytest.mark.parametrize('dim_in', [6, 4])
def test_erwin_gps_conv(local, dim_in):
    cfg.erwin.local = local
    layers = [make_layer('erwin_gps_conv', dim_in), make_layer(
        'erwin_gps_conv')]
    batch = make_batch(channels=dim_in)
    tree = build(batch)
    x = batch.x if dim_in == 6 else layers[0].lin(batch.x)
    for turn, layer in enumerate(layers):
        conv = ErwinGPSConv(6, layer.model.conv.layer.model, heads=2,
                            partition=turn)
        state = {key.replace('layer.model.', ''): value for key, value
                 in layer.model.state_dict().items()}
        conv.load_state_dict(state)
        x = conv(x, batch.edge_index, tree)
    for layer in layers:
        batch = layer(batch)
    torch.testing.assert_close(batch.x, x)


@pytest.mark.parametrize('name', ['gcn_erwin_conv', 'hybrid_erwin_conv'])
def test_hybrid(name):
    cfg.erwin.local = 'sageconv'
    layers = [make_layer(name, 5, 6), make_layer(name)]
    local = 'SAGEConv' if name == 'hybrid_erwin_conv' else 'GCNConv'
    batch = make_batch(channels=5)
    tree, x = build(batch), batch.x
    for turn, layer in enumerate(layers):
        conv = layer.local.layer.model
        assert type(conv).__name__ == local
        x = conv(x, batch.edge_index).relu()
        x = layer.erwin.model.blocks[0](x, tree, turn)
    for layer in layers:
        batch = layer(batch)
    torch.testing.assert_close(batch.x, x)


def test_local_layer_sees_the_batch():
    cfg.erwin.local = 'generaledgeconv'
    batch = make_batch()
    batch.edge_attr = torch.randn(batch.num_edges, 2)
    config = LayerConfig(dim_in=6, dim_out=6, edge_dim=2)
    layer = register.layer_dict['erwin_gps_conv'](config)
    assert layer(batch).x.shape == (sum(SIZES), 6)


def test_tree_is_built_once(monkeypatch):
    calls, make = [], forward_pass._make_tree
    monkeypatch.setattr(forward_pass, '_make_tree',
                        lambda *args: calls.append(args) or make(*args))
    layers = [make_layer('erwin_conv') for _ in range(3)]
    batch = make_batch()
    for layer in layers:
        batch = layer(batch)
    ball_pooling(batch.x, batch.batch)
    assert len(calls) == 1
    batch.pos = batch.pos.flip(0)  # another tree
    layers[0](batch)
    assert len(calls) == 2


def test_trees_go_with_their_batches():
    before = len(forward_pass._passes)
    batch = make_batch()
    ball_tree(batch, ball_size=8)
    assert len(forward_pass._passes) == before + 1
    torch.save(batch, '/dev/null')  # nothing was added to it
    del batch
    assert len(forward_pass._passes) == before


def brute_force_pooling(x, tree):
    level = tree.num_levels - 1
    ball, out = tree.ball_of_point(level), []
    for graph in range(tree.num_clouds):
        mine = tree.batch == graph
        rows = [x[mine & (ball == b)].amax(0) for b in ball[mine].unique()]
        out.append(torch.stack(rows).mean(0) if rows else
                   torch.zeros(x.size(1)))
    return torch.stack(out)


@pytest.mark.parametrize('ball_size, strides', [(1, ()), (8, ()), (8, (2, )),
                                                (8, (2, 4))])
@pytest.mark.parametrize('completion', ['balanced', 'perfect'])
def test_ball_pooling(ball_size, completion, strides):
    # All below zero, where a virtual slot that counted would show.
    batch = make_batch((25, 1, 0, 9, 40, 0))
    x = (-1 - batch.x.abs()).double().requires_grad_()
    options = {'ball_size': ball_size, 'completion': completion,
               'strides': strides}
    tree = ball_tree(batch, **options)
    out = ball_pooling(x, batch.batch)
    assert out.shape == (6, 6)
    torch.testing.assert_close(out, brute_force_pooling(x, tree))
    torch.testing.assert_close(ball_pooling(x, None, tree=tree), out)
    assert (out[[2, 5]] == 0).all()
    assert torch.autograd.gradcheck(
        lambda x: ball_pooling(x, batch.batch), (x, ), fast_mode=True)
    more = ball_pooling(x, batch.batch, size=8)
    assert torch.equal(more[:6], out) and (more[6:] == 0).all()


def test_ball_pooling_skips_virtual_balls():
    index = torch.tensor([0, 1, 1, 1, 2, 3, 4, 4])
    mask = torch.tensor([1, 1, 0, 0, 1, 1, 1, 0]).bool()
    tree = BallTree.from_permutation(
        torch.rand(5, 2), torch.tensor([0, 0, 1, 1, 1]), index, mask,
        ball_size=2)
    x = torch.tensor([-1., -2, -3, -4, -5]).view(5, 1)
    out = ball_pooling(x, None, tree=tree)
    assert out.flatten().tolist() == [-1, -4]


def test_ball_pooling_finds_no_stale_tree():
    batch, other = make_batch(), make_batch()
    ball_tree(batch, ball_size=8)
    ball_pooling(batch.x, batch.batch)
    for vector in (other.batch, None):
        with pytest.raises(ValueError, match="'batch' to be the vector"):
            ball_pooling(other.x, vector)
    with pytest.raises(ValueError, match='one row per point'):
        ball_pooling(batch.x[1:], batch.batch)
    tree = build(batch)
    with pytest.raises(ValueError, match="'batch' to be that of 'tree'"):
        ball_pooling(batch.x, batch.batch.flip(0), tree=tree)
    with pytest.raises(ValueError, match="'size' to be at least"):
        ball_pooling(batch.x, batch.batch, size=3)


def small_model(task='graph', **gnn):
    cfg.dataset.task = cfg.gnn.head = task
    cfg.gnn.update({'layers_post_mp': 1, 'dim_inner': 8,
                    'layer_type': 'erwin_conv', **gnn})
    cfg.model.graph_pooling = 'ball_pooling'
    cfg.share.dim_in = 6
    return GraphGymModule(6, 3, cfg).model.eval()


@pytest.mark.parametrize('stage', ['stack', 'skipsum', 'skipconcat'])
def test_model_keeps_graphs_apart(stage):
    model = small_model(layers_pre_mp=1, layers_mp=3, stage_type=stage)
    batch = make_batch()
    alone = [model(Batch.from_data_list([data]))[0]
             for data in batch.to_data_list()]
    torch.testing.assert_close(model(batch)[0], torch.cat(alone),
                               rtol=1e-4, atol=1e-5)


def test_encoder_brings_the_tree_to_any_layer():
    model = small_model(layer_type='gcnconv')
    with pytest.raises(ValueError, match='BallTree'):
        model(make_batch())
    cfg.dataset.node_encoder = True
    cfg.dataset.node_encoder_name = 'BallTree'
    pred, true = small_model(layer_type='gcnconv')(make_batch())
    assert pred.shape == (len(true), 3)


def test_inference_mode_and_single_graphs():
    model = small_model('node')
    with torch.inference_mode():
        expected, _ = model(make_batch((25, )))
    torch.manual_seed(1)
    data = make_graph(25)
    out, _ = model(data)
    torch.testing.assert_close(out, expected)


def test_errors():
    layer, batch = make_layer('erwin_conv'), make_batch()
    batch.pos = None
    with pytest.raises(ValueError, match='AddLaplacianPos'):
        layer(batch)
    with pytest.raises(ValueError, match='in 3 dimensions'):
        layer(make_batch(dim=2))
    with pytest.raises(ValueError, match='6 channels'):
        layer(make_batch(channels=5))
    cfg.erwin.local = 'erwin_gps_conv'
    for name in ('erwin_gps_conv', 'hybrid_erwin_conv'):
        with pytest.raises(ValueError, match="to be one of"):
            make_layer(name)


def test_layers_follow_the_configuration():
    cfg.erwin.mlp_ratio = 3
    cfg.erwin.completion = 'perfect'
    layer, batch = make_layer('erwin_conv'), make_batch()
    expected = ErwinConv(6, 6, heads=2, depth=1, mlp_ratio=3)
    assert sum(p.numel() for p in layer.parameters()) == sum(
        p.numel() for p in expected.parameters())
    tree = build(batch, completion='perfect')
    assert tree.num_balls > build(batch).num_balls
    torch.testing.assert_close(layer(batch).x,
                               layer.model(make_batch().x, tree))


def test_gps_activates_as_configured():
    outs = []
    for act in ('relu', 'elu'):
        torch.manual_seed(2)
        config = LayerConfig(dim_in=6, dim_out=6, act=act)
        layer = register.layer_dict['erwin_gps_conv'](config)
        outs.append(layer(make_batch()).x)
    assert not torch.allclose(*outs)


def test_no_bias():
    cfg.erwin.bias = 'none'
    assert make_layer('erwin_conv').model.blocks[0].attn.bias is None


@pytest.mark.parametrize('pos', [*POSITIONS])
def test_loader_adds_positions_and_trees(pos):
    cfg.dataset.update({'format': 'Erwin', 'name': 'Karate'})
    cfg.erwin.update({'pos': pos, 'dim': 2})
    loaders = create_loader()
    assert len(loaders) == 3
    batch = next(iter(loaders[0]))
    assert BallTree.from_data(batch).pos.shape == (34, 2)
    masks = [batch[f'{split}_mask'] for split in ('train', 'val', 'test')]
    assert [int(mask.sum()) for mask in masks] == [27, 4, 3]
    assert torch.stack(masks).sum(0).eq(1).all()


def test_loader_errors():
    cfg.dataset.update({'format': 'Erwin', 'name': 'Karate'})
    with pytest.raises(ValueError, match="'data' to have positions 'pos'"):
        create_loader()
    cfg.erwin.pos = 'compass'
    with pytest.raises(ValueError, match="to be one of 'pos', 'lap"):
        create_loader()


def test_loader_splits_graphs():
    cfg.dataset.update({'format': 'Erwin', 'name': 'Fake', 'task': 'graph'})
    cfg.erwin.pos = 'laplacian'
    sizes = [len(loader.dataset) for loader in create_loader()]
    assert sizes == [96, 12, 12]
    assert cfg.share.dim_out == 4


def test_random_splits_follow_the_seed():
    def split(seed):
        cfg.seed = seed
        return torch.cat([*loader._random_split(30).values()])

    assert torch.equal(split(1), split(1))
    assert not torch.equal(split(1), split(2))
    assert split(2).sort().values.tolist() == [*range(30)]


def test_loader_keeps_given_splits(monkeypatch):
    r"""GraphGym keeps those of OGB beside the graphs."""
    given = loader.BallTreeDataset([make_graph(n) for n in SIZES])
    parts = torch.tensor([2, 0]), torch.tensor([3]), torch.tensor([1])
    for split, part in zip(loader.SPLITS, parts, strict=True):
        given._data[f'{split}_graph_index'] = part
    monkeypatch.setattr(loader, 'load_ogb', lambda *args: given)
    cfg.dataset.update({'format': 'Erwin', 'name': 'ogbg_x', 'task': 'graph'})
    for part, found in zip(parts, create_loader(), strict=True):
        sizes = [data.num_nodes for data in found.dataset]
        assert sizes == [SIZES[i] for i in part]


def test_loader_leaves_other_formats_alone():
    assert loader.load_erwin('PyG', 'Karate', '') is None


def test_own_dataset_of_positions(monkeypatch):
    r"""Meshes and point clouds bring positions of their own."""
    edge_index, pos = grid(5, 5)
    data = Data(x=pos, pos=pos, edge_index=edge_index,
                y=pos[:, 0].sign().long())
    monkeypatch.setattr(loader, 'load_pyg',
                        lambda *args: loader.BallTreeDataset([data]))
    cfg.dataset.update({'format': 'Erwin', 'name': 'Grid'})
    cfg.erwin.dim = 2
    batch = next(iter(create_loader()[0]))
    tree = BallTree.from_data(batch)
    assert torch.equal(tree.pos, pos) and tree.ball_size == 8
    config = LayerConfig(dim_in=2, dim_out=4)
    layer = register.layer_dict['gcn_erwin_conv'](replace(config, act='elu'))
    assert layer(batch).x.shape == (25, 4)


def test_tree_follows_positions_and_options():
    batch = make_batch()
    first = ball_tree(batch, ball_size=8)
    assert ball_tree(batch, ball_size=8) is first
    assert ball_tree(batch, ball_size=16).ball_size == 16
    batch.pos.copy_(torch.rand_like(batch.pos))
    second = ball_tree(batch, ball_size=8)
    assert torch.equal(second.partition().index,
                       build(batch).partition().index)
    assert not torch.equal(second.partition().index,
                           first.partition().index)


def test_tree_follows_positions_written_in_place():
    r"""With nothing between that would have it built anew."""
    batch = make_batch()
    layer, fresh = make_layer('erwin_conv'), make_layer('erwin_conv')
    x, first = batch.x, ball_tree(batch, ball_size=8)
    assert ball_tree(batch, ball_size=8) is first
    with torch.no_grad():
        batch.pos.mul_(torch.tensor([9., 1., 0.1]))
        batch.pos[3] += 5.
    second = ball_tree(batch, ball_size=8)
    assert second is not first and torch.equal(second.pos, batch.pos)
    assert torch.equal(second.partition().index,
                       build(batch).partition().index)
    assert ball_tree(batch, ball_size=8) is second
    # Layers and pooling, too.
    layer(batch)
    batch.pos.copy_(batch.pos.flip(0))
    batch.x = x
    out = layer(batch).x
    alike = Batch.from_data_list(batch.to_data_list())
    alike.x, alike.pos = x, batch.pos.clone()
    torch.testing.assert_close(out, fresh(alike).x)
    torch.testing.assert_close(ball_pooling(out, batch.batch),
                               ball_pooling(out, None, tree=build(batch)))


def test_layers_follow_their_options():
    cfg.erwin.mlp_ratio = 2
    cfg.erwin.rotations = [0., 20.]
    conv = make_layer('erwin_conv').model
    want = ErwinConv(6, 6, heads=2, depth=1, mlp_ratio=2)
    assert ([p.shape for p in conv.parameters()] ==
            [p.shape for p in want.parameters()])
    config = LayerConfig(dim_in=6, dim_out=6, act='elu')
    layer = register.layer_dict['erwin_gps_conv'](config)
    assert any(isinstance(each, torch.nn.ELU) for each in layer.modules())
    # The encoder is the first to ask for a tree, so its options count.
    cfg.share.dim_in, batch = 6, make_batch()
    register.node_encoder_dict['BallTree'](4)(batch)
    tree = find_tree(batch.batch)
    assert tree.ball_size == 8
    want = build(batch, rotations=[0., 20.])
    assert torch.equal(tree.partition(1).index, want.partition(1).index)


def test_tree_of_another_attribute():
    batch = make_batch()
    batch.place, batch.pos = batch.pos, None
    transform = AddBallTree(ball_size=8, attr='place')
    tree = ball_tree(transform(batch))
    assert torch.equal(tree.pos, batch.place)


def test_ogb_on_new_versions_of_torch(tmp_path):
    r"""OGB reads and writes files that PyTorch refuses by default."""
    pytest.importorskip('rdkit')
    from tests.benchmarks.graphs.ogb_layouts import write_arxiv

    write_arxiv(tmp_path / 'ogbn_arxiv')
    cfg.erwin.pos, cfg.dataset.task = 'laplacian', 'node'
    for _ in range(2):  # the second time from its own files
        dataset = loader.load_erwin('Erwin', 'ogbn-arxiv', str(tmp_path))
    assert dataset[0].pos.shape == (dataset[0].num_nodes, 3)
