import pytest
import torch
from torch import Tensor

from tests.nn.hard import hard_batch
from torch_geometric_erwin import BallTree, ErwinTransformer, knn_graph


def unet(**kwargs) -> ErwinTransformer:
    torch.manual_seed(0)
    return ErwinTransformer(5, [8, 16, 32], **{
        'depths': [2, 1, 2], 'heads': [2, 2, 4], 'ball_sizes': [16, 16, 8],
        'strides': (4, 2), 'mp_steps': 1, **kwargs})


def cloud() -> tuple[Tensor, Tensor, Tensor]:
    pos, batch = hard_batch()
    return torch.randn(len(pos), 5), pos, batch


def test_tree_given_or_built():
    model, (x, pos, batch) = unet().eval(), cloud()
    out = model(x, pos=pos, batch=batch)
    assert out.shape == (len(pos), 8)
    tree = model.build_tree(pos, batch)
    assert torch.equal(model(x, tree), out)
    edge_index = knn_graph(pos, 16, batch)
    assert torch.equal(model(x, tree, edge_index), out)
    assert not torch.allclose(model(x, tree, knn_graph(pos, 3, batch)), out)
    assert torch.equal(model(x, tree.with_masks()), out)


def test_by_hand():
    r"""The U-Net out of its parts, in the order of the points."""
    model, (x, pos, batch) = unet(mp_steps=0, out_channels=3), cloud()
    model.eval()
    tree = model.build_tree(pos, batch)
    x0 = model.encoder[0](model.embedding.lin(x), tree)
    x1, tree1 = model.pools[0](x0, tree)
    x1 = model.encoder[1](x1, tree1)
    x2, tree2 = model.pools[1](x1, tree1)
    x2 = model.encoder[2](x2, tree2)
    x1 = model.decoder[1](model.unpools[1](x2, tree2, x1, tree1), tree1)
    x0 = model.decoder[0](model.unpools[0](x1, tree1, x0, tree), tree)
    assert torch.allclose(model(x, tree), model.lin(x0), atol=1e-5)


def test_residual_form():
    model = ErwinTransformer(5, 8, 2, depths=6, heads=2, ball_sizes=16)
    x, pos, batch = cloud()
    assert model(x, pos=pos, batch=batch).shape == (len(pos), 2)
    assert not model.strides and len(model.encoder[0].blocks) == 6


def test_encoder_alone():
    x, pos, batch = cloud()
    model = unet(decode=False, out_channels=3)
    assert not model.decoder and not model.unpools
    out, tree = model(x, pos=pos, batch=batch)
    assert out.shape == (tree.num_points, 3) and tree.num_levels == 1
    whole = model.build_tree(pos, batch)
    assert torch.equal(tree.pos, whole.coarsen().coarsen().pos)
    flat = ErwinTransformer(5, 8, depths=2, heads=2, ball_sizes=16,
                            decode=False)
    out, tree = flat(x, pos=pos, batch=batch)
    assert torch.equal(tree.pos, pos)
    flat.decode = True
    assert torch.equal(flat(x, pos=pos, batch=batch), out)


def test_completion():
    x, pos, batch = cloud()
    found = []
    for completion in ('balanced', 'perfect'):
        model = unet(completion=completion).eval()
        tree = BallTree.build(pos, batch, ball_size=[16, 16, 8],
                              strides=(4, 2), completion=completion)
        built = model.build_tree(pos, batch)
        assert built.completion == completion
        assert built.num_balls == tree.num_balls
        found.append(model(x, pos=pos, batch=batch))
        assert torch.equal(found[-1], model(x, tree))
    assert not torch.allclose(*found, atol=1e-3)


def test_one_ball_at_the_top():
    model = unet(ball_sizes=[16, 8, 1024], strides=(16, 8)).eval()
    x, pos, batch = cloud()
    tree = model.build_tree(pos, batch)
    assert tree.coarsen().coarsen().num_balls == 7
    assert model(x, tree).isfinite().all()
    big = unet(ball_sizes=[1024] * 3).eval()
    assert big(x, pos=pos, batch=batch).isfinite().all()


def test_decoder_of_its_own():
    model = unet(decoder_depths=[3, 1], decoder_heads=[4, 8])
    assert [len(conv.blocks) for conv in model.decoder] == [3, 1]
    assert [conv.heads for conv in model.decoder] == [4, 8]
    assert [len(conv.blocks) for conv in unet().decoder] == [2, 1]


@pytest.mark.parametrize('dim', [1, 2, 5])
def test_dimensions_and_cells(dim):
    model = unet(dim=dim).eval()
    pos, batch = hard_batch(dim)
    x = torch.randn(len(pos), 5)
    out = model(x, pos=pos, batch=batch, box=3.)
    assert torch.allclose(out, model(x, pos=pos % 3, batch=batch, box=3.),
                          atol=1e-4)
    assert not torch.allclose(out, model(x, pos=pos, batch=batch), atol=1e-3)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_types(dtype):
    model, (x, pos, batch) = unet().eval(), cloud()
    out = model(x, pos=pos, batch=batch)
    model.to(dtype)
    for kind in (torch.float32, torch.float64):
        other = model(x.to(dtype), pos=pos.to(kind), batch=batch)
        assert other.dtype == dtype
        assert torch.allclose(other.float(), out, atol=0.1)


def test_autocast():
    model, (x, pos, batch) = unet(), cloud()
    precise = model(x, pos=pos, batch=batch)
    with torch.autocast('cpu', torch.bfloat16):
        out = model(x, pos=pos, batch=batch)
    out.float().sum().backward()
    assert (out - precise).abs().max() < 0.1 * precise.abs().max()


@pytest.mark.parametrize('in_channels', [4, -1])
def test_weights_begin_as_the_authors_do(in_channels):
    torch.manual_seed(0)
    model = ErwinTransformer(in_channels, [64, 128], depths=[2, 2],
                             heads=[4, 4], ball_sizes=[16, 16], strides=(2, ))
    for _ in range(2):
        model(torch.rand(40, 4), pos=torch.rand(40, 3))
        for name, value in model.named_parameters():
            if name.endswith('weight') and value.dim() == 2:
                assert 0.015 < value.std() < 0.025, name
            elif name.endswith('lin.bias'):
                assert not value.any(), name
        model.reset_parameters()


def test_one_number_for_all_levels():
    numbers = {'depths': 2, 'heads': 2, 'decoder_depths': 1,
               'decoder_heads': 4}
    model = ErwinTransformer(5, 8, ball_sizes=16, strides=(4, 2), **numbers)
    assert model.hidden_channels == [8] * 3 and model.ball_sizes == [16] * 3
    assert [len(conv.blocks) for conv in model.encoder] == [2] * 3
    assert [conv.heads for conv in model.encoder] == [2] * 3
    assert [len(conv.blocks) for conv in model.decoder] == [1] * 2
    assert [conv.heads for conv in model.decoder] == [4] * 2
    x, pos, batch = cloud()
    assert model(x, pos=pos, batch=batch).shape == (len(pos), 8)


def test_features_of_several_clouds_at_once():
    r"""Reading the output as dense batches needs no more than `batch`."""
    model, (x, pos, batch) = unet().eval(), cloud()
    order = torch.randperm(len(pos))
    out = model(x[order], pos=pos[order], batch=batch[order])
    assert torch.allclose(out, model(x, pos=pos, batch=batch)[order],
                          atol=1e-5)


def test_repr_and_reset():
    model = unet()
    assert str(model) == ('ErwinTransformer(5, [8, 16, 32], None, '
                          'ball_sizes=[16, 16, 8], strides=[4, 2])')
    before = {k: v.clone() for k, v in model.named_parameters()}
    model.reset_parameters()
    changed = [k for k, v in model.named_parameters()
               if v.dim() > 1 and torch.equal(v, before[k])]
    assert not changed


@pytest.mark.parametrize('kwargs, name', [
    ({'depths': [2, 2]}, 'depths'),
    ({'heads': [2, 2, 3]}, 'heads'),
    ({'heads': [2, 2]}, 'heads'),
    ({'ball_sizes': [16, 16]}, 'ball_size'),
    ({'ball_sizes': [16, 12, 8]}, 'ball_size'),
    ({'strides': (4, 3)}, 'strides'),
    ({'strides': (32, 2)}, 'strides'),
    ({'decoder_depths': [2]}, 'decoder_depths'),
    ({'decoder_heads': [2, 2, 2]}, 'decoder_heads'),
    ({'mp_steps': -1}, 'mp_steps'),
    ({'k': 0}, 'k'),
    ({'rotations': ()}, 'rotations'),
    ({'completion': 'full'}, 'completion'),
    ({'out_channels': 0}, 'out_channels'),
    ({'basis': 'bessel'}, 'cutoff'),
    ({'bias': 'cubic'}, 'bias'),
])
def test_bad_arguments(kwargs, name):
    with pytest.raises(ValueError, match=f"Expected '{name}' to .*got"):
        unet(**kwargs)


def test_bad_input():
    model, (x, pos, batch) = unet(), cloud()
    tree = model.build_tree(pos, batch)

    def refused(text, *args, **kwargs):
        with pytest.raises(ValueError, match=f'Expected {text}.*got'):
            model(*args, **kwargs)

    refused("either 'tree' or 'pos'", x)
    refused("either 'tree' or 'pos'", x, tree, pos=pos)
    refused("'batch', 'box' and 'pbc'", x, tree, batch=batch)
    refused("'tree' to be a BallTree", x, pos)
    refused("'tree' to have the model's", x, tree.coarsen())
    refused("'tree' to have the model's", x, BallTree.build(
        pos, batch, ball_size=[16, 16, 8], strides=(4, 2), rotations=(0., )))
    refused("'x' to have 5 channels", x[:, 1:], tree)
    refused("'x' to have one row", x[1:], tree)
    refused("'edge_index' to hold integers", x, tree, torch.rand(2, 4))
    refused("'tree' to have positions in 3", x, pos=pos[:, :2])
    refused("'batch' to have one entry", x, pos=pos, batch=batch[1:])


@pytest.mark.parametrize('dropout', [0., 0.3])
def test_checkpoints(dropout):
    r"""The same result and gradients, from less that is kept."""
    x, pos, batch = cloud()
    pos.requires_grad_()
    found, kept = [], []

    def pack(x: Tensor) -> Tensor:
        sizes[x.data_ptr()] = x.numel()
        return x

    for ckpt_grad in (False, True):
        torch.manual_seed(0)
        model = unet(ckpt_grad=ckpt_grad, dropout=dropout)
        torch.manual_seed(1)
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            out = model(x, pos=pos, batch=batch)
        kept.append(sum(sizes.values()))
        variables = [pos, *model.parameters()]
        found.append([out, *torch.autograd.grad(out.square().sum(),
                                                variables)])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-5)
    assert kept[1] < 0.7 * kept[0]


def test_second_derivatives_of_checkpoints():
    x, pos, batch = cloud()
    pos = pos.double().requires_grad_()
    found = []
    for ckpt_grad in (False, True):
        torch.manual_seed(0)
        model = unet(ckpt_grad=ckpt_grad).double()
        out = model(x.double(), pos=pos, batch=batch)
        force, = torch.autograd.grad(out.square().sum(), pos,
                                     create_graph=True)
        found.append(torch.autograd.grad(force.square().sum(),
                                         model.encoder[0].parameters()))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b)
