r"""Draws panels with matplotlib."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colors
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from numpy.typing import NDArray

from torch_geometric_erwin.visualization import _panel
from torch_geometric_erwin.visualization._panel import Panel, Scale

# A column of a paper is 3.3 inches wide, its text 7 inches.
COLUMN, TEXT = 3.3, 7.
FONT: dict[Any, Any] = {
    'font.size': 8, 'axes.titlesize': 8, 'axes.labelsize': 8,
    'xtick.labelsize': 7, 'ytick.labelsize': 7, 'axes.linewidth': 0.6,
    'xtick.major.width': 0.6, 'ytick.major.width': 0.6,
    'xtick.major.size': 2.5, 'ytick.major.size': 2.5,
    'axes.labelpad': 2., 'axes.titlepad': 4.}


def draw_panels(panels: Sequence[Panel], scale: Scale | None,
                labels: Sequence[str], ax: Any) -> Figure:
    corners = np.stack([panel.corners() for panel in panels])
    low, high = corners[:, 0].min(0), corners[:, 1].max(0)
    room = 0.03 * max((high - low).max(), np.abs(high).max() * 1e-6, 1e-30)
    low, high = low - room, high + room
    with mpl.rc_context(FONT if ax is None else None):
        axes = check_axes(ax, panels) if ax is not None else new_axes(
            len(panels), high - low, scale is not None)
        shown = None if scale is None else mappable(scale)
        size = marker_size(axes[0], panels[0])
        for axis, panel in zip(axes, panels, strict=True):
            set_frame(axis, low, high, labels, panel.title)
            draw_panel(axis, panel, shown, size)
        if shown is not None and scale is not None:
            draw_bar(axes, panels, scale, shown)
    return axes[0].get_figure()


def check_axes(ax: Any, panels: Sequence[Panel]) -> list[Any]:
    axes: list[Any] = np.array(ax, dtype=object).ravel().tolist()
    if len(axes) != len(panels):
        raise ValueError(f"Expected 'ax' to have one entry per panel, "
                         f"{len(panels)} (got {len(axes)})")
    projection = '3d' if panels[0].dim == 3 else 'rectilinear'
    for axis in axes:
        if getattr(axis, 'name', None) != projection:
            raise ValueError(
                f"Expected 'ax' to have the projection {projection!r} for "
                f"{panels[0].dim} dimensions (got "
                f"{getattr(axis, 'name', type(axis).__name__)!r})")
    return axes


def new_axes(number: int, extent: NDArray, bar: bool) -> list[Any]:
    r"""Returns the axes of a new figure, at most four in a row."""
    columns = min(number, 4)
    rows = -(-number // columns)
    width = COLUMN if number == 1 else min(TEXT, 2.5 * columns)
    ratio = 1. if len(extent) == 3 else extent[1] / extent[0]
    cell = (width - 0.5 * bar - 0.4) / columns
    height = rows * (cell * min(max(ratio, 0.3), 2.) + 0.55)
    figure = Figure(figsize=(width, height), dpi=200, layout='compressed')
    options: dict[str, Any] = {'sharex': True, 'sharey': True}
    if len(extent) == 3:
        # Layouts leave out the label on the right.
        engine: Any = figure.get_layout_engine()
        engine.set(rect=(0., 0., 0.96, 1.))
        options = {'subplot_kw': {'projection': '3d', 'proj_type': 'ortho'}}
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axis in axes[number:]:
        axis.remove()
    return list(axes[:number])


def set_frame(axis: Any, low: NDArray, high: NDArray, labels: Sequence[str],
              title: str) -> None:
    for name, start, stop, label in zip('xyz', low, high, labels,
                                        strict=False):
        getattr(axis, f'set_{name}lim')(start, stop)
        getattr(axis, f'set_{name}label')(label)
        getattr(axis, f'{name}axis').set_major_locator(
            MaxNLocator(4, steps=[1, 2, 5, 10]))
    if len(low) == 3:
        axis.set_box_aspect(high - low, zoom=1.1)
        axis.set_title(title, y=0.98)
        axis.computed_zorder = False  # points over the balls they lie in
        axis.patch.set_visible(False)  # it would cover its neighbors' labels
        axis.grid(False)
        for side in (axis.xaxis, axis.yaxis, axis.zaxis):
            side.set_pane_color((1., 1., 1., 0.))
            side.labelpad = -8
        axis.tick_params(pad=-3)
        return
    axis.set_title(title)
    axis.set_aspect('equal')
    axis.label_outer()
    axis.spines[['top', 'right']].set_visible(False)


def mappable(scale: Scale) -> Any:
    kind = colors.LogNorm if scale.log else colors.Normalize
    norm = kind(scale.low, scale.high)
    # The yellow end of the map would vanish on white paper.
    table = mpl.colormaps['viridis'](np.linspace(0.9, 0., 256))
    return ScalarMappable(
        norm, colors.ListedColormap(table, name='dark_viridis_r'))


def draw_bar(axes: list[Any], panels: Sequence[Panel], scale: Scale,
             shown: Any) -> None:
    cut = any((panel.color < scale.low).any() for panel in panels)
    bar = axes[0].figure.colorbar(
        shown, ax=axes, label=scale.label, fraction=0.05, aspect=25,
        pad=0.02 if panels[0].dim == 2 else 0.06 + 0.1 / len(axes),
        extend='min' if cut else None)
    bar.outline.set_linewidth(0.4)


def marker_size(axis: Any, panel: Panel) -> float:
    r"""Returns an area at which the points do not hide each other."""
    box = axis.get_window_extent()
    area = box.width * box.height * (72 / axis.figure.dpi)**2
    number = len(panel.pos) + len(panel.faint)
    return float(np.clip(0.2 * area / number, 1., 12.))


def draw_panel(axis: Any, panel: Panel, shown: Any,
               size: float) -> None:
    if panel.centers is not None:
        draw_balls(axis, panel)
    solid: dict[str, Any] = {'linewidths': 0}
    if panel.dim == 3:
        solid['depthshade'] = shown is None
    if len(panel.faint):
        axis.scatter(*panel.faint.T, s=size, c=_panel.GREY, zorder=1, **solid)
    if panel.linked and shown is not None:
        draw_lines(axis, panel, shown)
    color: dict[str, Any] = {'c': panel.color}
    if shown is not None:
        color.update(norm=shown.norm, cmap=shown.cmap)
    axis.scatter(*panel.pos.T, s=size, zorder=4, **color, **solid)
    if panel.mark is not None:
        solid.pop('linewidths')
        axis.scatter(*panel.mark[:, None], s=max(4 * size, 30.), marker='o',
                     facecolors='none', edgecolors=_panel.MARK, linewidths=1.2,
                     zorder=5, **solid)


def draw_balls(axis: Any, panel: Panel) -> None:
    assert panel.centers is not None and panel.radii is not None
    assert panel.outline is not None
    fill = [colors.to_rgba(color, 0.12) for color in panel.outline]
    if panel.dim == 3:
        axis.add_collection3d(Poly3DCollection(
            silhouettes(panel.centers, panel.radii, axis.elev, axis.azim),
            facecolors=fill, edgecolors=panel.outline, linewidths=0.5,
            zorder=0))
        return
    for center, radius, face, edge in zip(panel.centers, panel.radii, fill,
                                          panel.outline, strict=True):
        axis.add_patch(Circle(tuple(center), radius, facecolor=face,
                              edgecolor=edge, linewidth=0.6, zorder=2))


def silhouettes(centers: NDArray, radii: NDArray, elev: float,
                azim: float) -> NDArray:
    r"""Returns the outlines of spheres as they are seen, shape :math:`(B,
    64, 3)`: polygons, as surfaces would show their meshes.
    """
    elev, azim = np.deg2rad(elev), np.deg2rad(azim)
    right = np.array([-np.sin(azim), np.cos(azim), 0.])
    up = np.array([-np.sin(elev) * np.cos(azim),
                   -np.sin(elev) * np.sin(azim), np.cos(elev)])
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circle = np.outer(np.cos(angle), right) + np.outer(np.sin(angle), up)
    return centers[:, None] + radii[:, None, None] * circle


def draw_lines(axis: Any, panel: Panel, shown: Any) -> None:
    assert panel.mark is not None
    start = np.broadcast_to(panel.mark, panel.pos.shape)
    segments = np.stack([start, panel.pos], axis=1)
    width = 0.3 + 2 * shown.norm(panel.color)
    style: dict[str, Any] = {
        'array': panel.color, 'norm': shown.norm, 'cmap': shown.cmap,
        'linewidths': width, 'zorder': 3,
        'alpha': 0.3 + 0.7 * shown.norm(panel.color)}
    if panel.dim == 3:
        axis.add_collection3d(Line3DCollection(segments, **style))
    else:
        axis.add_collection(LineCollection(list(segments), **style))
