r"""What the pictures show, read back from the figures."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch_geometric.nn import GATConv, SAGEConv

from torch_geometric_erwin import BallAttention, BallTree, ErwinConv
from torch_geometric_erwin.visualization import (
    plot_attention,
    plot_ball_tree,
    plot_receptive_field,
)
from torch_geometric_erwin.visualization.plot_ball_tree import ball_colors

mpl = pytest.importorskip('matplotlib')
go = pytest.importorskip('plotly.graph_objects')
colors = pytest.importorskip('matplotlib.colors')
collections = pytest.importorskip('matplotlib.collections')

Figure = pytest.importorskip('matplotlib.figure').Figure
GREY = (0xd0 / 255, ) * 3


def make_tree(dim, grad=False, **kwargs):
    torch.manual_seed(12)
    pos = torch.rand(330, dim, requires_grad=grad)
    batch = torch.arange(2).repeat_interleave(torch.tensor([130, 200]))
    return BallTree.build(pos, batch, ball_size=[16, 16], strides=[4],
                          **kwargs)


def make_field(dim, num_points=300):
    torch.manual_seed(12)
    pos = torch.rand(num_points, dim, requires_grad=True)
    tree = BallTree.build(pos, ball_size=16)
    x = torch.randn(num_points, 4, requires_grad=True)
    edge_index = tree.knn_graph(5)
    near = SAGEConv(4, 4)(x, edge_index)
    far = ErwinConv(4, 4, dim=dim)(near, tree)
    return pos, x, near, far


def make_attention(dim, heads=2):
    torch.manual_seed(12)
    tree = BallTree.build(torch.rand(100, dim, requires_grad=True),
                          ball_size=16)
    layer = BallAttention(8, heads, dim=dim)
    torch.nn.init.normal_(layer.lin_qkv.weight)
    _, pair = layer(torch.randn(100, 8), tree, 0, True)
    return tree, pair


def scatters(axis):
    r"""The points of each scatter plot: positions, values, colours."""
    found = []
    for item in axis.collections:
        if isinstance(item, collections.PathCollection):
            if axis.name == '3d':
                pos = np.stack([np.asarray(i) for i in item._offsets3d], 1)
            else:
                pos = np.asarray(item.get_offsets())
            found.append((pos, item.get_array(), item.get_facecolors()))
    return found


def same_points(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual[np.lexsort(actual.T)],
                               expected[np.lexsort(expected.T)], atol=1e-6)


def balls_of(tree, level, cloud):
    inside = tree.ball_of_point(level)[tree.batch == cloud].unique()
    pos = tree.centers(level)[inside].detach().numpy()
    return pos, tree.radii(level)[inside].detach().numpy()


def drawn_balls(figure, panel, dim, backend):
    r"""The centres and radii of balls, read from what is drawn."""
    if backend == 'matplotlib' and dim == 2:
        circles = figure.axes[panel].patches
        return (np.array([c.center for c in circles]),
                np.array([c.radius for c in circles]))
    if backend == 'matplotlib':
        poly, = [c for c in figure.axes[panel].collections
                 if hasattr(c, '_faces')]
        rims = list(np.asarray(poly._faces)[..., :3])
    elif dim == 2:
        axis = f'x{panel + 1}' if panel else 'x'
        rims = [np.array([[s.x0, s.y0], [s.x1, s.y1]])
                for s in figure.layout.shapes if s.xref == axis]
        return (np.array([rim.mean(0) for rim in rims]),
                np.array([np.ptp(rim[:, 0]) / 2 for rim in rims]))
    else:
        scene = f'scene{panel + 1}' if panel else 'scene'
        rims = [np.stack([t.x, t.y, t.z], 1) for t in figure.data
                if t.name == 'ball' and t.scene == scene]
    centers = np.array([rim.mean(0) for rim in rims])
    return centers, np.array([np.linalg.norm(rim[0] - center)
                              for rim, center in zip(rims, centers,
                                                     strict=True)])


@pytest.mark.parametrize('backend', ['matplotlib', 'plotly'])
@pytest.mark.parametrize('dim', [2, 3])
def test_balls_are_those_of_the_tree(dim, backend):
    tree = make_tree(dim, grad=True)
    figure = plot_ball_tree(tree, (0, 1), cloud=1, backend=backend)
    for level in (0, 1):
        center, radius = balls_of(tree, level, 1)
        drawn = drawn_balls(figure, level, dim, backend)
        same_points(np.column_stack([*drawn]),
                    np.column_stack([center, radius]))
        if backend == 'matplotlib':
            title = figure.axes[level].get_title()
            assert title == f'Level {level}: {len(center)} balls'


@pytest.mark.parametrize('partition', [0, 1])
def test_points_have_the_color_of_their_ball(partition):
    tree = make_tree(2)
    figure = plot_ball_tree(tree, partition=partition)
    (pos, _, color), = scatters(figure.axes[0])
    inside = tree.batch == 0
    same_points(pos, tree.pos[inside])
    ball = tree.partition(partition).inverse[inside] // 16
    names = [colors.to_hex(c) for c in color]
    for i in ball.unique():
        mine = {names[j] for j in (ball == i).nonzero().flatten().tolist()}
        assert len(mine) == 1
        near = (pos - pos[int((ball == i).int().argmax())])**2
        near = near.sum(1)
        near[(ball == i).numpy()] = np.inf
        assert names[near.argmin()] not in mine


def test_overlapping_balls_have_other_colors():
    generator = np.random.default_rng(0)
    centers, radii = generator.random((60, 2)), np.full(60, 0.08)
    color = ball_colors(centers, radii)
    far = np.linalg.norm(centers[:, None] - centers, axis=2)
    overlap = (far < 0.16) & ~np.eye(60, dtype=bool)
    assert overlap.sum() > 60
    assert not (overlap & (color[:, None] == color)).any()
    assert len(set(ball_colors(np.zeros((9, 2)), np.zeros(9)))) == 9


def test_balls_across_the_border_of_a_cell_are_not_outlined():
    torch.manual_seed(12)
    tree = BallTree.build(torch.rand(512, 2), ball_size=16, box=1.)
    for partition in (0, 1):
        figure = plot_ball_tree(tree, partition=partition)
        (pos, *_), = scatters(figure.axes[0])
        assert len(pos) == 512
        center, radius = drawn_balls(figure, 0, 2, 'matplotlib')
        assert (radius < 0.5).all()
        ball = tree.partition(partition).inverse // 16
        first = torch.stack([tree.pos[ball == i].amax(0) -
                             tree.pos[ball == i].amin(0)
                             for i in range(tree.num_balls)])
        assert len(center) == int((first < 0.5).all(1).sum())


@pytest.mark.parametrize('virtual', ['masked', 'copy'])
def test_other_trees(virtual):
    pos = torch.rand(6, 2)
    index = torch.tensor([0, 1, 2, 2, 3, 4, 5, 5])
    mask = torch.tensor([True, True, True, False] * 2)
    tree = BallTree.from_permutation(pos, None, index, mask, ball_size=4,
                                     virtual=virtual)
    center, radius = drawn_balls(plot_ball_tree(tree), 0, 2, 'matplotlib')
    same_points(center, tree.centers())
    np.testing.assert_allclose(radius, tree.radii(), atol=1e-6)
    single = plot_ball_tree(BallTree.build(torch.rand(1, 2)))
    single.savefig(io.BytesIO())
    coarse = make_tree(2).coarsen()
    same_points(drawn_balls(plot_ball_tree(coarse), 0, 2, 'matplotlib')[0],
                balls_of(coarse, 0, 0)[0])


def jacobian_norm(x, out, point):
    rows = [torch.autograd.grad(value, x, retain_graph=True)[0]
            for value in out[point]]
    return torch.stack(rows).square().sum((0, 2)).sqrt().numpy()


@pytest.mark.parametrize('backend', ['matplotlib', 'plotly'])
@pytest.mark.parametrize('dim', [2, 3])
def test_receptive_field(dim, backend):
    pos, x, near, far = make_field(dim)
    figure = plot_receptive_field(x, {'near': near, 'far': far}, pos, 5,
                                  backend=backend)
    place = pos.detach().numpy()
    for i, out in enumerate((near, far)):
        norm = jacobian_norm(x, out, 5)
        assert 0 < (norm > 0).sum() < len(norm)
        if backend == 'matplotlib':
            grey, seen, mark = scatters(figure.axes[i])
            np.testing.assert_allclose(grey[2][:, :3], [GREY], atol=1e-6)
            faint, (where, value, _), mark = grey[0], seen, mark[0]
        else:
            traces = figure.data[3 * i:3 * i + 3]
            faint, where, mark = (
                np.stack([getattr(t, axis) for axis in 'xyz'[:dim]], 1)
                for t in traces)
            value = traces[1].customdata
            assert traces[0].marker.color == '#d0d0d0'
            np.testing.assert_allclose(traces[1].marker.color,
                                       np.log10(value))
        same_points(faint, place[norm == 0])
        same_points(np.column_stack([where, value]),
                    np.column_stack([place, norm])[norm > 0])
        np.testing.assert_allclose(mark, place[[5]], atol=1e-6)
    far[0].sum().backward()  # the graph is kept


@pytest.mark.parametrize('log', [False, True])
def test_panels_share_a_scale(log):
    pos, x, near, far = make_field(2)
    figure = plot_receptive_field(x, {'a': near, 'b': far}, pos, 5, log=log)
    norms = [c.norm for axis in figure.axes[:2] for c in axis.collections
             if c.get_array() is not None]
    assert norms[0] is norms[1] is not None
    high = max(jacobian_norm(x, out, 5).max() for out in (near, far))
    assert norms[0].vmax == pytest.approx(high)
    assert isinstance(norms[0], colors.LogNorm) == log
    assert log or norms[0].vmin == 0
    assert len(figure.axes) == 3  # and one colour bar


def test_receptive_field_behind_normalization():
    r"""The sum over the channels of a normalized sample is constant."""
    pos, x, near, _ = make_field(2)
    out = torch.nn.functional.layer_norm(near, (4, ))
    figure = plot_receptive_field(x, out, pos, 5)
    value = scatters(figure.axes[0])[1][1]
    assert value.max() > 1e-2


@pytest.mark.parametrize('backend', ['matplotlib', 'plotly'])
def test_receptive_field_of_nothing_and_of_one(backend):
    pos, x, _, _ = make_field(2)
    plot_receptive_field(x, 0 * x, pos, 5, backend=backend)
    plot_receptive_field(x, x[:, 0], pos, 5, backend=backend)


@pytest.mark.parametrize('backend', ['matplotlib', 'plotly'])
@pytest.mark.parametrize('dim', [2, 3])
def test_attention(dim, backend):
    tree, (edge_index, alpha) = make_attention(dim)
    figure = plot_attention((edge_index, alpha), tree.pos, 7, zoom=False,
                            backend=backend)
    own = edge_index[1] == 7
    place = tree.pos.detach().numpy()
    for head in range(2):
        weight = alpha[own, head].detach().numpy()
        ends = place[edge_index[0, own]]
        if backend == 'matplotlib':
            axis = figure.axes[head]
            assert axis.get_title() == f'Head {head}'
            lines, = [c for c in axis.collections
                      if isinstance(c, collections.LineCollection)]
            segments = np.array(lines._segments3d if dim == 3
                                else lines.get_segments())
            drawn = lines.get_array()
            order = np.argsort(drawn)
            assert (np.diff(np.array(lines.get_linewidths())[order])
                    >= 0).all()
            faint, (where, value, _), _ = scatters(axis)
            assert len(faint[0]) == 100 - len(weight)
        else:
            axis = ('scene' if dim == 3 else 'x') + (str(head + 1) if head
                                                     else '')
            traces = [t for t in figure.data
                      if (t.scene if dim == 3 else t.xaxis) == axis]
            lines = [t for t in traces if t.name == 'lines']
            drawn = np.concatenate([t.customdata[1::3] for t in lines])
            segments = np.concatenate([
                np.stack([getattr(t, a) for a in 'xyz'[:dim]], 1)
                .reshape(-1, 3, dim)[:, :2] for t in lines])
            points, = [t for t in traces if t.name == 'points']
            where = np.stack([getattr(points, a) for a in 'xyz'[:dim]], 1)
            value = points.marker.color
        expected = np.column_stack([ends, weight])
        assert drawn.sum() == pytest.approx(1, abs=1e-5)
        same_points(np.column_stack([segments[:, 1], drawn]), expected)
        same_points(np.column_stack([where, value]), expected)
        np.testing.assert_allclose(
            segments[:, 0], place[[7] * len(weight)], atol=1e-6)


def test_attention_of_one_head_and_of_pyg():
    tree, (edge_index, alpha) = make_attention(2)
    figure = plot_attention((edge_index, alpha), tree.pos, 7, head=1)
    assert [a.get_title() for a in figure.axes] == ['Head 1', '']
    near = scatters(figure.axes[0])[0][0]
    assert 0 < len(near) < 84  # less than all others: it zooms
    _, pair = GATConv(4, 4, heads=3)(torch.randn(100, 4), tree.knn_graph(4),
                                     return_attention_weights=True)
    assert len(plot_attention(pair, tree.pos, 7).axes) == 4
    plot_attention((edge_index, alpha[:, 0]), tree.pos, 7)


@pytest.mark.parametrize('dim', [2, 3])
@pytest.mark.parametrize('number', [1, 3, 5])
def test_axes(dim, number):
    tree, (edge_index, alpha) = make_attention(dim)
    alpha = alpha[:, :1].expand(-1, number)
    figure = Figure()
    kind = {'subplot_kw': {'projection': '3d'}} if dim == 3 else {}
    axes = figure.subplots(1, number, **kind)
    assert plot_attention((edge_index, alpha), tree.pos, 7,
                          ax=axes) is figure
    with pytest.raises(ValueError, match=rf"'ax' to have one entry per "
                       rf"panel, {number} \(got {number + 1}\)"):
        plot_attention((edge_index, alpha), tree.pos, 7,
                       ax=figure.subplots(1, number + 1, **kind))
    assert len(plot_attention((edge_index, alpha), tree.pos, 7).axes
               ) == number + 1
    with pytest.raises(ValueError, match="'ax' to have the projection"):
        plot_ball_tree(make_tree(5 - dim), ax=figure.subplots(**kind))


@pytest.mark.parametrize('backend', ['matplotlib', 'plotly'])
@pytest.mark.parametrize('dim', [2, 3])
def test_units_and_equal_axes(dim, backend):
    figure = plot_ball_tree(make_tree(dim), units='nm', backend=backend)
    if backend == 'plotly':
        assert isinstance(figure, go.Figure)
        frame = figure.layout.scene if dim == 3 else figure.layout
        assert frame.yaxis.title.text == 'y (nm)'
        assert (frame.aspectmode == 'data' if dim == 3 else
                frame.yaxis.scaleanchor == 'x')
        assert figure.to_json()
        return
    axis, = figure.axes
    assert isinstance(figure, Figure)
    assert axis.get_ylabel() == 'y (nm)'
    if dim == 2:
        assert axis.get_aspect() == 1
    else:
        sides = [np.ptp(axis.get_xlim()), np.ptp(axis.get_ylim()),
                 np.ptp(axis.get_zlim())]
        ratio = axis._box_aspect / sides
        np.testing.assert_allclose(ratio, ratio[0])


def test_nothing_is_shown_or_changed(tmp_path):
    before = dict(mpl.rcParams)
    tree, pair = make_attention(3)
    plot_attention(pair, tree.pos, 7).savefig(tmp_path / 'a.png')
    plot_ball_tree(make_tree(2)).savefig(tmp_path / 'b.pdf')
    assert dict(mpl.rcParams) == before
    assert (tmp_path / 'a.png').stat().st_size > 5000


TREE, CLOUD = make_tree(2), torch.rand(10, 2)


@pytest.mark.parametrize('change,match', [
    ({'tree': 3}, r"'tree' to be a BallTree \(got int\)"),
    ({'tree': make_tree(1)}, r"'tree.pos' to have shape \[num_points, 2\] or "
                             r"\[num_points, 3\] \(got \[330, 1\]\)"),
    ({'tree': make_tree(4)}, r"\(got \[330, 4\]\)"),
    ({'level': 2}, r"'level' to be in \[0, 2\) \(got 2\)"),
    ({'level': (0, -1)}, r"'level' to be in \[0, 2\) \(got -1\)"),
    ({'level': ()}, r"'level' to be at least one level \(got none\)"),
    ({'cloud': 2}, r"'cloud' to be in \[0, 2\) \(got 2\)"),
    ({'tree': BallTree.build(CLOUD, torch.ones(10, dtype=torch.long))},
     r"'cloud' to have points \(got 0, which is empty\)"),
    ({'partition': 2}, r"'partition' to be in \[0, 2\) \(got 2\)"),
    ({'backend': 'bokeh'}, r"'backend' to be one of 'matplotlib', 'plotly' "
                           r"\(got 'bokeh'\)"),
    ({'backend': 'plotly', 'ax': 1}, r"'ax' to be None"),
    ({'ax': 1}, r"'ax' to have the projection 'rectilinear' .*got 'int'"),
])
def test_ball_tree_errors(change, match):
    with pytest.raises(ValueError, match=match):
        plot_ball_tree(**{'tree': TREE, **change})


X = torch.rand(10, 3, requires_grad=True)


@pytest.mark.parametrize('change,match', [
    ({'x': 1}, r"'x' to be a tensor \(got int\)"),
    ({'x': X[:9]}, r"'x' to have one row per point, 10 \(got shape \[9, 3"),
    ({'x': X.detach()}, r"'x' to require gradients"),
    ({'out': {}}, r"'out' to be at least one output \(got none\)"),
    ({'out': {'a': None}}, r"'out' to be a tensor \(got NoneType\)"),
    ({'out': X[:9]}, r"'out' to have one row per point, 10"),
    ({'out': torch.rand(10, 3)}, r"'out' to be computed from 'x'"),
    ({'out': X.clone() / 0}, r"'out' to have finite gradients"),
    ({'x': X.detach().requires_grad_()}, r"'out' to be computed from 'x'"),
    ({'pos': None}, r"'pos' to be a tensor \(got NoneType\)"),
    ({'pos': torch.rand(10)}, r"'pos' to have shape .*\(got \[10\]\)"),
    ({'pos': CLOUD / 0}, r"'pos' to have finite coordinates"),
    ({'point': 10}, r"'point' to be in \[0, 10\) \(got 10\)"),
    ({'point': 1.}, r"'point' to be in \[0, 10\) \(got 1.0\)"),
    ({'backend': None}, r"'backend' to be one of"),
])
def test_receptive_field_errors(change, match):
    given = {'x': X, 'out': 2 * X, 'pos': CLOUD, 'point': 0, **change}
    with pytest.raises(ValueError, match=match):
        plot_receptive_field(**given)


EDGES, ALPHA = torch.tensor([[1, 2], [0, 0]]), torch.rand(2, 4)


@pytest.mark.parametrize('change,match', [
    ({'attention_weights': ALPHA}, r"pair \(edge_index, alpha\) .*got Tensor"),
    ({'attention_weights': (EDGES, None)}, r"got tuple"),
    ({'attention_weights': (EDGES[0], ALPHA)}, r"got \[2\] and \[2, 4\]"),
    ({'attention_weights': (EDGES, ALPHA[:1])}, r"got \[2, 2\] and \[1, 4"),
    ({'attention_weights': (EDGES + 9, ALPHA)}, r"10 points .*from 9 to 11"),
    ({'attention_weights': (EDGES, ALPHA / 0)}, r"to be finite"),
    ({'pos': torch.rand(10, 5)}, r"'pos' to have shape .*\(got \[10, 5\]\)"),
    ({'point': -1}, r"'point' to be in \[0, 10\) \(got -1\)"),
    ({'point': 3}, r"'point' to be the target of at least one edge \(got 3"),
    ({'head': 4}, r"'head' to be in \[0, 4\) \(got 4\)"),
    ({'backend': 'x'}, r"'backend' to be one of"),
])
def test_attention_errors(change, match):
    given = {'attention_weights': (EDGES, ALPHA), 'pos': CLOUD, 'point': 0,
             **change}
    with pytest.raises(ValueError, match=match):
        plot_attention(**given)


def test_missing_libraries():
    code = '''
import sys
sys.modules['matplotlib'] = sys.modules['plotly'] = None
import torch
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.visualization import plot_ball_tree
for backend in ('matplotlib', 'plotly'):
    try:
        plot_ball_tree(BallTree.build(torch.rand(9, 2)), backend=backend)
    except ImportError as error:
        assert "'torch_geometric_erwin[visualization]'" in str(error)
        assert backend in str(error)
    else:
        raise AssertionError(backend)
'''
    subprocess.run([sys.executable, '-c', code], check=True)
