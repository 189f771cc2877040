from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_geometric_erwin.visualization._panel import (
    Panel,
    Scale,
    check_backend,
    check_index,
    check_pos,
    draw,
    to_array,
)


def plot_attention(
    attention_weights: tuple[Tensor, Tensor],
    pos: Tensor,
    point: int,
    *,
    head: int | None = None,
    zoom: bool = True,
    backend: str = 'matplotlib',
    units: str | None = None,
    ax: Any = None,
) -> Any:
    r"""Draws the attention that one point pays to others, such as those of
    its ball: a line to each of them, the wider and darker the more weight.

    Positions are drawn as they are. For a periodic tree, pass those of the
    images that are nearest to the point.

    Args:
        attention_weights: The edges, shape :math:`(2, E)`, and their weights,
            shape :math:`(E, H)` or :math:`(E)`, as
            :class:`~torch_geometric_erwin.nn.BallAttention` and the attention
            layers of PyG return them with
            :obj:`return_attention_weights=True`.
        pos: Positions of the points, shape :math:`(N, 2)` or :math:`(N, 3)`.
        point: The point that attends, which is marked.
        head: The head to draw. (default: :obj:`None`, all of them, one panel
            each)
        zoom: Whether to leave out points far from all that are attended to.
            (default: :obj:`True`)
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
        ValueError: If shapes do not fit, or there is no such point or head,
            or the point attends to none.
    """
    check_backend(backend, ax)
    points = check_pos(pos)
    check_index('point', point, len(points))
    edge_index, alpha = check_weights(attention_weights, len(points))
    if head is not None:
        check_index('head', head, alpha.size(1))
    own = edge_index[1] == point
    source = edge_index[0, own].cpu().numpy()
    if not source.size:
        raise ValueError(f"Expected 'point' to be the target of at least one "
                         f"edge (got {point}, which has none)")

    weights = to_array(alpha[own])
    heads = range(alpha.size(1)) if head is None else [head]
    rest = other_points(points, source, zoom)
    panels = [attention_panel(points, source, weights[:, i], rest, point,
                              f'Head {i}') for i in heads]
    high = max(float(weights[:, list(heads)].max()), np.finfo(float).tiny)
    return draw(panels, Scale('Attention weight', 0., high), backend, units,
                ax)


def check_weights(attention_weights: Any, size: int) -> tuple[Tensor, Tensor]:
    r"""Returns the edges and their weights, shape :math:`(E, H)`."""
    if (not isinstance(attention_weights, (tuple, list))
            or len(attention_weights) != 2
            or not all(isinstance(i, Tensor) for i in attention_weights)):
        raise ValueError(f"Expected 'attention_weights' to be the pair "
                         f"(edge_index, alpha) of tensors (got "
                         f"{type(attention_weights).__name__})")
    edge_index, alpha = attention_weights
    alpha = alpha.unsqueeze(1) if alpha.dim() == 1 else alpha
    edges = edge_index.size(-1) if edge_index.dim() else 0
    if (list(edge_index.shape) != [2, edges] or alpha.dim() != 2
            or alpha.size(0) != edges or alpha.size(1) == 0):
        raise ValueError(f"Expected 'attention_weights' to have shapes [2, "
                         f"num_edges] and [num_edges, heads] (got "
                         f"{list(edge_index.shape)} and "
                         f"{list(attention_weights[1].shape)})")
    if edges and not 0 <= int(edge_index.min()) <= int(
            edge_index.max()) < size:
        raise ValueError(f"Expected 'attention_weights' to have edges of the "
                         f"{size} points of 'pos' (got points from "
                         f"{int(edge_index.min())} to "
                         f"{int(edge_index.max())})")
    if not bool(torch.isfinite(alpha).all()):
        raise ValueError("Expected 'attention_weights' to be finite (got NaN "
                         "or infinity)")
    return edge_index, alpha


def other_points(pos: NDArray, source: NDArray, zoom: bool) -> NDArray:
    r"""Returns the points to draw in grey."""
    rest = np.ones(len(pos), dtype=bool)
    if zoom:
        low, high = pos[source].min(0), pos[source].max(0)
        margin = (high - low).max() / 4
        rest = ((pos >= low - margin) & (pos <= high + margin)).all(1)
    rest[source] = False
    return pos[rest]


def attention_panel(pos: NDArray, source: NDArray, weight: NDArray,
                    rest: NDArray, point: int, title: str) -> Panel:
    order = weight.argsort(kind='stable')  # the largest weight on top
    return Panel(pos[source[order]], weight[order], rest, title,
                 mark=pos[point], linked=True)
