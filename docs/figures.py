r"""Draws the figures of the documentation.

``python docs/figures.py [folder]``; ``conf.py`` runs it at each build.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import graph_figures
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch_geometric.nn import GCNConv

from torch_geometric_erwin import (
    BallAttention,
    BallTree,
    ErwinConv,
    ErwinTransformer,
    knn_graph,
)
from torch_geometric_erwin.visualization import (
    plot_attention,
    plot_ball_tree,
    plot_receptive_field,
)

FOLDER = Path(__file__).parent / '_build' / 'figures'
STYLE: dict[Any, Any] = {
    'font.size': 8, 'axes.titlesize': 8, 'axes.linewidth': 0.6,
    'xtick.labelsize': 7, 'xtick.major.width': 0.6}
INK, GREY, MARK = '#303030', '#b0b0b0', '#d55e00'
AROUND: dict[str, Any] = {'xlim': (-0.25, 1.58), 'ylim': (-0.3, 1.3)}
PALETTE = ('#332288', '#117733', '#882255', '#44aa99', '#cc6677', '#999933',
           '#aa4499', '#5599bb')


def new_axes(columns: int, height: float,
             width: float = 7.) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width, height), dpi=200, layout='constrained')
    return figure, list(figure.subplots(1, columns))


def bare(axis: Any, title: str) -> None:
    r"""Leaves the picture and its title."""
    axis.set(title=title, xlabel='', ylabel='', xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def cloud(size: int, seed: int = 0) -> Tensor:
    r"""Points that are denser in some places than in others."""
    rng = torch.Generator().manual_seed(seed)
    pos = torch.rand(8 * size, 2, generator=rng)
    chance = torch.zeros(len(pos))
    for x, y, width, share in ((0.3, 0.3, 0.15, 1.), (0.72, 0.6, 0.2, 0.7),
                               (0.35, 0.8, 0.1, 0.5), (0.5, 0.5, 1., 0.15)):
        square = (pos - torch.tensor([x, y])).square().sum(1)
        chance += share * torch.exp(-square / width**2)
    keep = torch.multinomial(chance, size, generator=rng)
    return pos[keep] * torch.tensor([1.3, 1.])


def splits() -> Figure:
    r"""The cloud is cut in halves, and they are cut again."""
    pos = cloud(256, 1)
    tree = BallTree.build(pos, ball_size=32, strides=(2, 2))
    figure, axes = new_axes(3, 1.95)
    plot_ball_tree(tree, level=[2, 1, 0], ax=axes)
    cuts = list(median_cuts(pos[tree.partition().index], 3))
    for i, axis in enumerate(axes):
        number = 2**(i + 1)
        bare(axis, f'{number} balls of {256 // number} points')
        for depth, ends in cuts:
            if depth <= i:
                axis.plot(*ends.T, color=INK, lw=1.4 if depth == i else 0.7,
                          zorder=6, solid_capstyle='butt')
    return figure


def median_cuts(pos: Tensor, depth: int, level: int = 0,
                low: Tensor | None = None,
                high: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
    r"""Yields the cuts of points in the order of their slots."""
    low = pos.amin(0) - 0.03 if low is None else low
    high = pos.amax(0) + 0.03 if high is None else high
    left, right = pos.chunk(2)
    axis = int((pos.amax(0) - pos.amin(0)).argmax())
    middle = (left[:, axis].max() + right[:, axis].min()) / 2
    start, stop = low.clone(), high.clone()
    start[axis] = stop[axis] = middle
    yield level, torch.stack([start, stop])
    if level + 1 < depth:
        yield from median_cuts(left, depth, level + 1, low, stop)
        yield from median_cuts(right, depth, level + 1, start, high)


def slots() -> Figure:
    r"""The slots of 18 points in balls of 4, and what pooling makes."""
    pos = cloud(18, 3)
    figure = Figure(figsize=(7., 2.3), dpi=200, layout='constrained')
    axes = figure.subplots(2, 1)
    for axis, completion in zip(axes, ('balanced', 'perfect'), strict=True):
        tree = BallTree.build(pos, ball_size=4, strides=(2, ),
                              completion=completion)
        draw_slots(axis, tree)
        axis.set_title(f"completion='{completion}': {tree.num_balls} balls, "
                       f'{tree.num_slots - 18} virtual slots', loc='left')
    return figure


def draw_slots(axis: Any, tree: BallTree) -> None:
    r"""Draws slots as boxes, and below them the next level's points."""
    size, stride = tree.ball_size, tree.strides[0]
    part = tree.partition()
    place = np.arange(32) + 0.5 * (np.arange(32) // size) + 0.5
    middle = place.reshape(-1, stride).mean(1)
    for slot, point in enumerate(part.index.tolist()):
        color = PALETTE[slot // size]
        real = part.mask is None or bool(part.mask[slot])
        axis.add_patch(Rectangle(
            (place[slot] - 0.46, 0.), 0.92, 0.8, lw=0.8, edgecolor=color,
            facecolor=color if real else 'none', ls='-' if real else ':'))
        if real:
            below = middle[slot // stride]
            axis.text(place[slot], 0.38, str(point), color='white',
                      ha='center', va='center', fontsize=7)
            axis.plot([place[slot], below], [-0.04, -0.55], color=GREY,
                      lw=0.8, zorder=1)
            axis.scatter(below, -0.6, s=14, color=color, lw=0, zorder=2)
    axis.set(xlim=(-0.1, place[-1] + 0.6), ylim=(-0.8, 0.85))
    axis.set_axis_off()


def orientations() -> Figure:
    r"""Two orientations, and what a point sees through both."""
    pos = cloud(256, 1)
    tree = BallTree.build(pos, ball_size=32)
    figure, axes = new_axes(3, 2.15)
    for i, name in enumerate(('First orientation', 'Second orientation')):
        plot_ball_tree(tree, partition=i, ax=axes[i])
        bare(axes[i], name)
        axes[i].set(**AROUND)
    one, two = (tree.partition(i).inverse // 32 for i in range(2))
    point = int((pos - torch.tensor([0.52, 0.45])).norm(dim=1).argmin())
    first = one == one[point]
    both = torch.isin(one, one[two == two[point]])
    axis = axes[2]
    for some, color in ((~both, '#d0d0d0'), (both & ~first, '#88ccee'),
                        (first, '#332288')):
        axis.scatter(*pos[some].T, s=8, color=color, lw=0)
    axis.scatter(*pos[point], s=40, fc='none', ec=MARK, lw=1.2)
    axis.set(**AROUND, aspect='equal')
    bare(axis, 'What one point sees')
    axis.text(0., 1.2, 'in one block', color='#332288', va='top')
    axis.text(0.7, 1.2, 'in two blocks', color='#3a8fb7', va='top')
    return figure


def levels() -> Figure:
    r"""Points become fewer, at the centers of mass of what they hold."""
    trees = [BallTree.build(cloud(256, 1), ball_size=32, strides=(4, 4),
                            rotations=(0., ))]
    while trees[-1].num_levels > 1:
        trees.append(trees[-1].coarsen())
    figure, axes = new_axes(3, 2.15)
    for i, (axis, tree) in enumerate(zip(axes, trees, strict=True)):
        if i > 0:
            finer = trees[i - 1]
            ends = torch.stack([finer.pos, tree.pos[finer.cluster()]], dim=1)
            axis.add_collection(LineCollection(
                list(ends.numpy()), colors=GREY, linewidths=0.6, zorder=1))
            axis.scatter(*finer.pos.T, s=3, color=GREY, lw=0, zorder=1)
        plot_ball_tree(tree, ax=axis)
        balls = f'{tree.num_balls} ball' + 's' * (tree.num_balls > 1)
        bare(axis, f'Level {i}: {tree.num_points} points in {balls}')
        axis.set(**AROUND)
    return figure


def receptive_fields() -> Figure:
    r"""What the output at one point depends on."""
    pos = torch.rand(1024, 2, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1024, 8, requires_grad=True)
    edge_index, hidden = knn_graph(pos, 8), x
    for conv in [GCNConv(8, 8) for _ in range(4)]:
        hidden = conv(hidden, edge_index).relu()
    model = ErwinTransformer(
        8, [8, 16], depths=[2, 2], heads=[2, 2], ball_sizes=[64, 64],
        strides=(4, ), mp_steps=0, dim=2).eval()
    one, two = (ErwinConv(8, 8, heads=2, dim=2, depth=i) for i in (1, 2))
    for parameter in torch.nn.ModuleList([model, one, two]).parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tree = BallTree.build(pos, ball_size=64)
    figure = plot_receptive_field(x, {
        'Four GCN layers': hidden,
        'One Erwin block': one(x, tree),
        'Two Erwin blocks': two(x, tree),
        'Two levels': model(x, model.build_tree(pos)),
    }, pos, int((pos - 0.5).norm(dim=1).argmin()))
    for axis in figure.axes[:4]:
        bare(axis, axis.get_title())
    return figure


def attention() -> Figure:
    r"""The weights of four heads."""
    pos = torch.rand(400, 2, generator=torch.Generator().manual_seed(2))
    tree = BallTree.build(pos, ball_size=32)
    layer = BallAttention(32, heads=4, dim=2)
    torch.nn.init.normal_(layer.lin_qkv.weight, std=0.14)
    layer.sigma.data = torch.tensor([0., 2., 3., 4.])
    _, weights = layer(torch.randn(400, 32), tree, 0, True)
    figure = plot_attention(weights, pos, 3)
    for axis, sigma in zip(figure.axes, layer.sigma, strict=False):
        bare(axis, f'$\\sigma = {sigma:g}$')
    return figure


def periodic() -> Figure:
    r"""Balls of both orientations of a periodic cell, and their images."""
    pos = torch.rand(320, 2, generator=torch.Generator().manual_seed(1))
    tree = BallTree.build(pos, ball_size=64, box=1.)
    shifts = torch.cartesian_prod(*2 * [torch.arange(-1, 2)])
    images = (pos + shifts.unsqueeze(1)).flatten(0, 1)
    figure, axes = new_axes(2, 2.9, width=5.6)
    for i, name in enumerate(('First orientation', 'Second orientation')):
        ball = tree.partition(i).inverse // tree.ball_size
        color = [PALETTE[number] for number in ball.tolist()]
        axes[i].scatter(*images.T, s=9, c=9 * color, lw=0, alpha=0.25)
        axes[i].scatter(*pos.T, s=9, c=color, lw=0)
        axes[i].add_patch(Rectangle((0, 0), 1, 1, fill=False, ec=INK))
        axes[i].set(xlim=(-0.35, 1.35), ylim=(-0.35, 1.35), aspect='equal')
        bare(axes[i], name)
    return figure


def jumps() -> Figure:
    r"""The energy of a cloud and the force on a point along its way."""
    rng = torch.Generator().manual_seed(3)
    pos = torch.rand(128, 2, generator=rng, dtype=torch.double)
    x = torch.randn(128, 8, generator=rng, dtype=torch.double)
    conv = ErwinConv(8, 8, heads=2, dim=2).double()
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    way = np.linspace(0.1, 0.9, 241)
    trees = []
    for place in way:
        pos[0] = torch.tensor([place, 0.5])
        trees.append(BallTree.build(pos.clone(), ball_size=16))
    kept = [replace(trees[75], pos=tree.pos) for tree in trees]
    pairs = [who_meets_whom(tree) for tree in trees]
    breaks = [i for i in range(1, len(way))
              if not torch.equal(pairs[i - 1], pairs[i])]
    figure, axes = new_axes(2, 2.2)
    for some, label, color in ((kept, 'balls kept', '#cc6677'),
                               (trees, 'balls rebuilt', '#332288')):
        values = np.array([energy_and_force(conv, x, tree) for tree in some])
        gaps = breaks if some is trees else []
        for axis, column in zip(axes, values.T, strict=True):
            axis.plot(np.insert(way, gaps, np.nan), np.insert(
                column, gaps, np.nan), color=color, lw=1.1, label=label)
    axes[0].set(ylabel='Energy')
    axes[1].set(ylabel='Force on it')
    for axis in axes:
        axis.set(xlabel='Position of one point', yticks=[])
        axis.spines[['top', 'right']].set_visible(False)
    axes[0].legend(frameon=False)
    return figure


def who_meets_whom(tree: BallTree) -> Tensor:
    source, target = tree.edge_index(None)
    return (source * tree.num_points + target).sort().values


def energy_and_force(conv: ErwinConv, x: Tensor,
                     tree: BallTree) -> tuple[float, float]:
    pos = tree.pos.clone().requires_grad_()
    energy = conv(x, replace(tree, pos=pos)).sum()
    grad, = torch.autograd.grad(energy, pos)
    return energy.item(), -grad[0, 0].item()


def turning() -> Figure:
    r"""Balls that turn along with the cloud, and others."""
    figure, axes = new_axes(4, 1.9)
    pos = cloud(96, seed=2)
    pos = (pos - pos.mean(0)) * torch.tensor([1.4, 0.8])
    angle = torch.tensor(0.9)
    turn = torch.tensor([[angle.cos(), angle.sin()],
                         [-angle.sin(), angle.cos()]])
    for i, axis in enumerate(axes):
        how = 'principal' if i < 2 else 'coordinate'
        points = pos @ turn if i % 2 else pos
        tree = BallTree.build(points, ball_size=16, rotations=(0., ),
                              axes=how)
        colors = [PALETTE[b] for b in tree.ball_of_point().tolist()]
        axis.scatter(*points.T, s=7, c=colors, lw=0)
        axis.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect='equal')
        bare(axis, f'{how} axes{", turned" if i % 2 else ""}')
    return figure


FIGURES = (splits, slots, orientations, levels, receptive_fields, attention,
           turning, periodic, jumps, *graph_figures.FIGURES)


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for make in FIGURES:
        torch.manual_seed(0)
        with mpl.rc_context(STYLE):
            make().savefig(folder / f'{make.__name__}.png')


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:]))
