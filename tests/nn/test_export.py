r"""Layers and the model in other people's programs."""

import io

import pytest
import torch
from torch.export import Dim, ShapesCollection
from torch.utils import _pytree as pytree

from torch_geometric_erwin import BallTree, ErwinConv, ErwinTransformer
from torch_geometric_erwin.nn import (
    BallAttention,
    BallPooling,
    BallUnpooling,
    ErwinGPSConv,
    MPNNConv,
)


def make(sizes: list[int], box: float | None = None, **kwargs):
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    pos = torch.rand(len(batch), 3)
    if box is not None:
        box = box * torch.eye(3)[None] + torch.rand(1, 3, 3) / 10
    tree = BallTree.build(pos, batch, ball_size=16, box=box, **kwargs)
    return torch.randn(len(batch), 16), tree.with_masks()


def export(module, *args) -> torch.export.ExportedProgram:
    r"""Exports with any numbers of points and clouds, saves and loads."""
    shapes = ShapesCollection()
    for leaf in pytree.tree_leaves(args):
        shapes[leaf] = {0: Dim.AUTO}
    program = torch.export.export(module, args, dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.parametrize('box', [None, 1.])
def test_layer(box):
    conv = ErwinConv(16, 16, heads=2).eval()
    program = export(conv, *make([100, 150, 50], box))
    x, tree = make([70, 7], box)
    torch.testing.assert_close(program.module()(x, tree), conv(x, tree))


def small_model() -> ErwinTransformer:
    return ErwinTransformer(16, 8, 4, depths=1, heads=2, ball_sizes=16,
                            strides=[2], mp_steps=1, mlp_ratio=2).eval()


def test_model():
    model = small_model()
    program = export(model, *make([40, 60, 50], strides=[2]))
    x, tree = make([70, 7], strides=[2])
    torch.testing.assert_close(program.module()(x, tree), model(x, tree))


def test_package(tmp_path):
    conv = ErwinConv(16, 16, heads=2, depth=1, mlp_ratio=1).eval()
    path = torch._inductor.aoti_compile_and_package(
        export(conv, *make([40, 60, 50])),
        package_path=str(tmp_path / 'conv.pt2'))
    x, tree = make([70, 7])
    package = torch._inductor.aoti_load_package(path)
    torch.testing.assert_close(package(x, tree), conv(x, tree))


@pytest.mark.parametrize('box', ['none', 'edges', 'lattice'])
def test_trees_built_in_compiled_models(box):
    r"""In one graph, whatever the numbers of points and clouds."""
    torch._dynamo.reset()
    model = small_model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True,
                             backend='aot_eager')
    cell = {'none': None, 'edges': torch.ones(3),
            'lattice': torch.eye(3)[None] + torch.rand(1, 3, 3) / 10}[box]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for sizes in ([40, 60, 50], [20, 7], [33, 8, 40, 2]):
            batch = torch.arange(len(sizes)).repeat_interleave(
                torch.tensor(sizes))
            args = {'x': torch.randn(len(batch), 16), 'batch': batch,
                    'pos': torch.rand(len(batch), 3), 'box': cell}
            torch.testing.assert_close(compiled(**args), model(**args))


def test_errors_in_compiled_models():
    def build(pos):
        return BallTree.build(pos, ball_size=16).pos

    compiled = torch.compile(build, fullgraph=True, backend='eager')
    with pytest.raises(ValueError, match='finite coordinates'):
        compiled(torch.full((9, 3), torch.nan))


def test_loads_with_weights_only(tmp_path):
    _, tree = make([30, 20], 1.)
    torch.save(tree, tmp_path / 'tree.pt')
    loaded = torch.load(tmp_path / 'tree.pt', weights_only=True)
    assert isinstance(loaded, BallTree) and loaded.rotations == tree.rotations
    for a, b in zip(pytree.tree_leaves(loaded), pytree.tree_leaves(tree),
                    strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('module', [
    ErwinConv(8, 8), BallAttention(8), MPNNConv(8), ErwinGPSConv(8, None),
    BallPooling(8, 8, 2), BallUnpooling(8, 8, 2), small_model(),
    torch.nn.ModuleList([ErwinConv(8, 8)])])
def test_scripts_name_the_way_out(module):
    with pytest.raises(NotImplementedError, match=r'torch\.export'):
        torch.jit.script(module)
