from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_geometric_erwin.tree import BallTree
from torch_geometric_erwin.visualization._panel import (
    Panel,
    check_backend,
    check_index,
    check_pos,
    draw,
    to_array,
)

# Paul Tol's muted scheme: nine colours that colour-blind readers tell apart.
PALETTE = ('#332288', '#88ccee', '#44aa99', '#117733', '#999933', '#ddcc77',
           '#cc6677', '#882255', '#aa4499')


def plot_ball_tree(
    tree: BallTree,
    level: int | Sequence[int] = 0,
    *,
    cloud: int = 0,
    partition: int = 0,
    backend: str = 'matplotlib',
    units: str | None = None,
    ax: Any = None,
) -> Any:
    r"""Draws the points of a cloud in the colours of their balls, and the
    balls (Definition 3.2) as circles or, in three dimensions, as spheres.

    Balls that overlap have different colours, as far as nine colours go.
    Points of a periodic tree are drawn where they are stored, and only balls
    that extend over less than half of the cell along each axis are outlined:
    others lie on both sides of its border.

    Args:
        tree: The tree, in two or three dimensions.
        level: The level whose balls to draw, or several, one panel each.
            (default: :obj:`0`)
        cloud: Which cloud of the batch to draw. (default: :obj:`0`)
        partition: The orientation. (default: :obj:`0`)
        backend: :obj:`"matplotlib"`, or :obj:`"plotly"` for a picture to
            turn and zoom. (default: :obj:`"matplotlib"`)
        units: The unit of the positions, for the labels of the axes.
            (default: :obj:`None`)
        ax: The :class:`matplotlib.axes.Axes` to draw into, or one per panel;
            three-dimensional ones for three dimensions.
            (default: :obj:`None`, a new figure)

    Returns:
        A :class:`matplotlib.figure.Figure` or a
        :class:`plotly.graph_objects.Figure`.

    Raises:
        ImportError: If the library that draws is not installed.
        ValueError: If the tree is not in two or three dimensions, or lacks
            the level, cloud or orientation, or the cloud has no points.
    """
    check_backend(backend, ax)
    if not isinstance(tree, BallTree):
        raise ValueError(f"Expected 'tree' to be a BallTree (got "
                         f"{type(tree).__name__})")
    pos = check_pos(tree.pos, 'tree.pos')
    check_index('cloud', cloud, tree.num_clouds)
    check_index('partition', partition, tree.num_orientations)
    levels = list(level) if isinstance(level, Sequence) else [level]
    if not levels:
        raise ValueError("Expected 'level' to be at least one level "
                         "(got none)")
    for item in levels:
        check_index('level', item, tree.num_levels)
    inside = to_array(tree.batch == cloud) > 0
    if not inside.any():
        raise ValueError(f"Expected 'cloud' to have points (got {cloud}, "
                         f"which is empty)")

    mass = np.ones(len(pos)) if tree.mass is None else to_array(tree.mass)
    edges = None if tree.box is None else to_array(tree.box[cloud])
    panels = [
        tree_panel(pos[inside], mass[inside],
                   ball_of_point(tree, item, partition).cpu().numpy()[inside],
                   edges, f'Level {item}') for item in levels
    ]
    return draw(panels, None, backend, units, ax)


def ball_of_point(tree: BallTree, level: int, partition: int) -> Tensor:
    r"""Returns the ball of a level and orientation that each point lies in.

    Points are pooled in the first orientation, whatever the level's own.
    """
    point = torch.arange(tree.num_points, device=tree.device)
    for _ in range(level):
        point, tree = tree.cluster()[point], tree.coarsen()
    return tree.partition(partition).inverse[point] // tree.ball_size


def tree_panel(pos: NDArray, mass: NDArray, ball: NDArray,
               edges: NDArray | None, title: str) -> Panel:
    r"""Returns the picture of points whose balls are numbered."""
    _, ball, count = np.unique(ball, return_inverse=True, return_counts=True)
    total = np.bincount(ball, mass)
    centers = np.stack(
        [np.bincount(ball, mass * axis) / total for axis in pos.T], axis=1)
    radii = np.zeros(len(count))
    np.maximum.at(radii, ball, np.linalg.norm(pos - centers[ball], axis=1))
    color = ball_colors(centers, radii)
    whole = np.ones(len(count), dtype=bool)
    if edges is not None:
        low = np.full_like(centers, np.inf)
        high = np.full_like(centers, -np.inf)
        np.minimum.at(low, ball, pos)
        np.maximum.at(high, ball, pos)
        whole &= (high - low < edges / 2).all(1)
    number = f'{len(count):,} ball' + 's' * (len(count) > 1)
    return Panel(pos, color[ball], pos[:0], f'{title}: {number}',
                 centers=centers[whole], radii=radii[whole],
                 outline=color[whole])


def ball_colors(centers: NDArray, radii: NDArray) -> NDArray:
    r"""Returns colours of balls, different ones where balls overlap."""
    palette = np.array(PALETTE)
    gap = np.full((len(PALETTE), len(centers)), np.inf)
    chosen = np.zeros(len(centers), dtype=int)
    tiny = np.finfo(float).tiny
    for i, (center, radius) in enumerate(zip(centers, radii, strict=True)):
        best = chosen[i] = gap[:, i].argmax()
        far = np.linalg.norm(centers - center, axis=1)
        reach = np.maximum(radii + radius, tiny)
        gap[best] = np.minimum(gap[best], far / reach)
    return palette[chosen]
