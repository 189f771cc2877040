from collections.abc import Mapping
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

# More decades would leave most of the colours to points that hardly matter.
DECADES = 6


def plot_receptive_field(
    x: Tensor,
    out: Tensor | Mapping[str, Tensor],
    pos: Tensor,
    point: int,
    *,
    backend: str = 'matplotlib',
    log: bool = True,
    units: str | None = None,
    ax: Any = None,
) -> Any:
    r"""Draws how much the output of one point depends on the input of each
    point :math:`j`, as the (Frobenius) norm of the derivative

    .. math::
        \left\| \frac{\partial \mathbf{y}_i}{\partial \mathbf{x}_j}
        \right\|.

    Points whose derivative is exactly zero are grey: the model does not see
    them. There is one backward pass for each channel of :obj:`out`; pass
    fewer channels where that takes long. The graph of :obj:`out` is kept.

    Args:
        x: The features that :obj:`out` was computed from, shape :math:`(N,
            *)`, which require gradients.
        out: The output of a model, shape :math:`(N, *)`, or several by their
            names, one panel each, with the same colours.
        pos: Positions of the points, shape :math:`(N, 2)` or :math:`(N, 3)`.
        point: The point :math:`i`, which is marked.
        backend: :obj:`"matplotlib"`, or :obj:`"plotly"` for a picture to
            turn and zoom. (default: :obj:`"matplotlib"`)
        log: Whether colours follow the logarithm of the norm, over six
            decades at most. (default: :obj:`True`)
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
        ValueError: If shapes do not fit, :obj:`out` was not computed from
            :obj:`x`, or a gradient is not finite.
    """
    check_backend(backend, ax)
    points = check_pos(pos)
    check_index('point', point, len(points))
    outs = dict(out) if isinstance(out, Mapping) else {'': out}
    if not outs:
        raise ValueError("Expected 'out' to be at least one output (got "
                         "none)")
    check_rows('x', x, len(points))
    if not x.requires_grad:
        raise ValueError("Expected 'x' to require gradients (got a tensor "
                         "that does not)")
    for value in outs.values():
        check_rows('out', value, len(points))

    norms = {name: influence(x, y, point) for name, y in outs.items()}
    panels = [field_panel(points, norm, point, name)
              for name, norm in norms.items()]
    return draw(panels, find_scale([*norms.values()], log), backend, units,
                ax)


def check_rows(name: str, value: Any, size: int) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"Expected '{name}' to be a tensor (got "
                         f"{type(value).__name__})")
    if value.dim() < 1 or value.size(0) != size:
        raise ValueError(f"Expected '{name}' to have one row per point, "
                         f"{size} (got shape {list(value.shape)})")


def influence(x: Tensor, out: Tensor, point: int) -> NDArray:
    r"""Returns the norm of the derivative of a point's output with respect
    to each point's input, shape :math:`(N)`.
    """
    norm = torch.zeros(len(x), dtype=torch.double, device=x.device)
    # One channel at a time: their sum may not depend on anything, as behind
    # a normalization.
    for value in out[point].flatten():
        grad = None
        if value.requires_grad:
            grad, = torch.autograd.grad(value, x, retain_graph=True,
                                        allow_unused=True)
        if grad is None:
            raise ValueError("Expected 'out' to be computed from 'x' (got an "
                             "output that does not depend on it)")
        norm = norm.hypot(grad.reshape(len(x), -1).double().norm(dim=1))
    if not bool(norm.isfinite().all()):
        raise ValueError("Expected 'out' to have finite gradients (got NaN "
                         "or infinity)")
    return to_array(norm)


def field_panel(pos: NDArray, norm: NDArray, point: int, name: str) -> Panel:
    seen = np.flatnonzero(norm)
    seen = seen[norm[seen].argsort(kind='stable')]  # the strongest on top
    count = f'{len(seen):,} of {len(pos):,} points'
    return Panel(pos[seen], norm[seen], pos[norm == 0],
                 f'{name}\n{count}' if name else count, mark=pos[point])


def find_scale(norms: list[NDArray], log: bool) -> Scale | None:
    r"""Returns the scale of all panels; :obj:`None` if all is grey."""
    positive = np.concatenate([norm[norm > 0] for norm in norms])
    if not positive.size:
        return None
    high = positive.max()
    low = max(positive.min(), high * 10.**-DECADES) if log else 0.
    if low == high:
        low = high / 10
    return Scale('Gradient norm', float(low), float(high), log)
