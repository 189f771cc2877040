r"""Draws the figures of the page on graphs; see ``figures.py``."""

import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import grid, to_undirected

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.transforms import AddLaplacianPos

RESULTS = Path(__file__).parents[1] / 'benchmarks' / 'results'
# Color-blind safe; ours are drawn last and thicker.
STYLES = {
    'GCN': ('#999999', 'o', ':'), 'GAT': ('#666666', 's', ':'),
    'GIN': ('#333333', '^', ':'), 'GPS': ('#0072b2', 'D', '--'),
    'GPS, performer': ('#56b4e9', 'v', '--'),
    'ErwinGPS': ('#d55e00', 'o', '-'),
    'GCN/Erwin hybrid': ('#009e73', 's', '-'),
}
LAYERS = {'ErwinGPSConv': 'ErwinGPS', 'GPSConv': 'GPS',
          'GPSConv, performer': 'GPS, performer'}
PALETTE = ('#332288', '#117733', '#cc6677', '#44aa99', '#882255', '#999933',
           '#88ccee', '#ddcc77', '#aa4499', '#661100', '#6699cc', '#888888',
           '#225555', '#ee8866', '#77aadd', '#bbcc33')


def ring(nodes: int = 64) -> tuple[Data, Tensor]:
    node = torch.arange(nodes)
    edges = torch.stack([node, (node + 1) % nodes])
    angle = 2 * math.pi * node / nodes
    place = torch.stack([angle.cos(), angle.sin()], dim=1)
    return Data(edge_index=to_undirected(edges), num_nodes=nodes), place


def tree(depth: int = 6) -> tuple[Data, Tensor]:
    nodes = 2**(depth + 1) - 1
    child = torch.arange(1, nodes)
    edges = to_undirected(torch.stack([child, (child - 1) // 2]))
    level = torch.log2(torch.arange(nodes) + 1.).floor()
    angle = 2 * math.pi * (
        (torch.arange(nodes) + 1 - 2**level) + 0.5) / 2**level
    place = level.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], 1)
    return Data(edge_index=edges, num_nodes=nodes), place


def mesh(size: int = 16) -> tuple[Data, Tensor]:
    edges, place = grid(size, size)
    edges = edges[:, edges[0] != edges[1]]
    return Data(edge_index=edges, num_nodes=len(place)), place


def graph_positions() -> Figure:
    r"""Balls of nodes, on graphs that have no positions."""
    figure = Figure(figsize=(7, 2.5), dpi=200, layout='constrained')
    graphs = {'ring': ring(), 'binary tree': tree(), 'grid': mesh()}
    for axis, (name, (data, place)) in zip(
            figure.subplots(1, 3), graphs.items(), strict=True):
        data = AddLaplacianPos(8)(data)
        ball = BallTree.build(data.pos, ball_size=16).ball_of_point()
        lines = place[data.edge_index.t()].numpy()
        axis.add_collection(LineCollection(lines, colors='#c0c0c0', lw=0.6))
        colors = [PALETTE[i % len(PALETTE)] for i in ball.tolist()]
        axis.scatter(*place.t(), c=colors, s=9, zorder=2)
        axis.set(title=f'{name}: {data.num_nodes} nodes, '
                 f'{int(ball.max()) + 1} balls', aspect='equal')
        axis.axis('off')
    return figure


def read(name: str) -> list[dict[str, str]]:
    with (RESULTS / f'{name}.csv').open() as file:
        return list(csv.DictReader(file))


def long_range() -> Figure:
    r"""Accuracy against distance."""
    figure = Figure(figsize=(7, 2.9), dpi=200, layout='constrained')
    axes = figure.subplots(1, 2)
    draw_scores(axes[0], 'ring_transfer', lambda size: size // 2)
    axes[0].set(title='Ring transfer', xlabel='hops to the message',
                ylabel='accuracy, %')
    axes[0].axhline(20, color='#d0d0d0', lw=0.8, zorder=0)
    draw_scores(axes[1], 'tree_neighbors_match', lambda size: size)
    depths = torch.linspace(2, 7, 50)
    axes[1].plot(depths, 100 / 2**depths, color='#d0d0d0', lw=0.8, zorder=0)
    axes[1].set(title='Tree-NeighborsMatch', xlabel='depth of the tree')
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=4,
                  loc='outside lower center', frameon=False, fontsize=7)
    return figure


def draw_scores(axis: Any, name: str, distance: Any) -> None:
    scores: defaultdict[str, Any] = defaultdict(lambda: defaultdict(list))
    for row in read(name):
        scores[row['net']][distance(int(row['size']))].append(
            100 * float(row['score']))
    for net, (color, marker, line) in STYLES.items():
        x = sorted(scores[net])
        axis.errorbar(
            x, [mean(scores[net][i]) for i in x],
            [stdev(scores[net][i]) for i in x], label=net, color=color,
            marker=marker, ls=line, ms=4, lw=1.6 if line == '-' else 1.,
            capsize=2, elinewidth=0.7)
    axis.spines[['top', 'right']].set_visible(False)
    axis.set_ylim(-3, 105)


def graph_cost() -> Figure:
    r"""Time and memory against the number of nodes."""
    figure = Figure(figsize=(7, 2.6), dpi=200, layout='constrained')
    rows = read('gps')
    labels = {'seconds': 'forward and backward, s', 'bytes': 'memory, GB'}
    for axis, (column, label) in zip(figure.subplots(1, 2), labels.items(),
                                     strict=True):
        unit = 1. if column == 'seconds' else 1e9
        for layer, net in LAYERS.items():
            color, marker, line = STYLES[net]
            points = [(int(row['nodes']), float(row[column]) / unit)
                      for row in rows if row['layer'] == layer]
            axis.loglog(*zip(*points, strict=True), label=layer, color=color,
                        marker=marker, ls=line, ms=4)
        axis.set(xlabel='nodes', ylabel=label)
        axis.spines[['top', 'right']].set_visible(False)
        axis.legend(frameon=False, fontsize=7)
    return figure


FIGURES = (graph_positions, long_range, graph_cost)
