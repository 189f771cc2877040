r"""Draws panels with plotly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from torch_geometric_erwin.visualization._panel import (
    AXES,
    GREY,
    MARK,
    Panel,
    Scale,
)

# The yellow end of the map would vanish on white paper.
COLORS = sample_colorscale('Viridis', list(np.linspace(0.9, 0., 16)))
WIDTHS = 8


def draw_panels(panels: Sequence[Panel], scale: Scale | None,
                labels: Sequence[str], ax: None) -> go.Figure:
    dim = panels[0].dim
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    spec = {'type': 'scene' if dim == 3 else 'xy'}
    figure = make_subplots(
        rows, columns, specs=[[spec] * columns] * rows,
        subplot_titles=[panel.title.replace('\n', '<br>')
                        for panel in panels],
        horizontal_spacing=0.06 if dim == 2 else 0.02)
    for i, panel in enumerate(panels):
        place = {'row': i // columns + 1, 'col': i % columns + 1}
        draw_panel(figure, panel, scale, place)
        set_frame(figure, dim, labels, place)
    figure.update_layout(
        template='plotly_white', showlegend=False,
        width=max(600, 380 * columns), height=120 + 400 * rows,
        margin={'l': 60, 'r': 20, 't': 60, 'b': 50})
    if scale is not None:
        figure.update_layout(coloraxis=color_axis(scale))
    return figure


def set_frame(figure: go.Figure, dim: int, labels: Sequence[str],
              place: dict[str, int]) -> None:
    if dim == 3:
        axes = {f'{axis}axis': {'title': label, 'nticks': 5}
                for axis, label in zip(AXES, labels, strict=True)}
        figure.update_scenes(aspectmode='data', **axes, **place)
        return
    line = {'showgrid': False, 'zeroline': False, 'showline': True,
            'ticks': 'outside', 'linecolor': 'black'}
    figure.update_xaxes(title=labels[0], constrain='domain', **line, **place)
    figure.update_yaxes(title=labels[1], scaleanchor=figure.data[-1].xaxis,
                        **line, **place)


def color_axis(scale: Scale) -> dict[str, Any]:
    r"""Returns the colour scale: the logarithm's is labelled by powers."""
    low, high = (float(to_color(np.array(end), scale))
                 for end in (scale.low, scale.high))
    bar: dict[str, Any] = {'title': {'text': scale.label, 'side': 'right'},
                           'thickness': 15}
    if scale.log and high - low >= 1:
        powers = list(range(int(np.ceil(low)), int(np.floor(high)) + 1))
        bar.update(tickvals=powers,
                   ticktext=[f'10<sup>{power}</sup>' for power in powers])
    elif scale.log:
        ends = np.linspace(low, high, 4)
        bar.update(tickvals=list(ends),
                   ticktext=[f'{10**end:.2g}' for end in ends])
    return {'colorscale': COLORS, 'cmin': low, 'cmax': high, 'colorbar': bar}


def to_color(value: NDArray, scale: Scale) -> NDArray:
    return np.log10(value) if scale.log else value


def draw_panel(figure: go.Figure, panel: Panel, scale: Scale | None,
               place: dict[str, int]) -> None:
    if panel.centers is not None:
        draw_balls(figure, panel, place)
    small = 5 if panel.dim == 2 else 3
    if len(panel.faint):
        add(figure, panel.faint, place, name='faint', mode='markers',
            hoverinfo='skip', marker={'color': GREY, 'size': small})
    if panel.linked and scale is not None:
        draw_lines(figure, panel, scale, place)
    marker: dict[str, Any] = {'color': panel.color, 'size': small + 1}
    extra: dict[str, Any] = {'hoverinfo': 'skip'}
    if scale is not None:
        marker.update(color=to_color(panel.color, scale),
                      coloraxis='coloraxis')
        extra = {'customdata': panel.color,
                 'hovertemplate': f'{scale.label}: %{{customdata:.3g}}'
                                  '<extra></extra>'}
    add(figure, panel.pos, place, name='points', mode='markers',
        marker=marker, **extra)
    if panel.mark is not None:
        add(figure, panel.mark[None], place, name='mark', mode='markers',
            hoverinfo='skip',
            marker={'symbol': 'circle-open', 'color': MARK,
                    'size': 3 * small, 'line': {'width': 3}})


def add(figure: go.Figure, pos: NDArray, place: dict[str, int],
        **kwargs: Any) -> None:
    kind = go.Scatter if pos.shape[1] == 2 else go.Scatter3d
    coordinates = dict(zip(AXES, pos.T, strict=False))
    figure.add_trace(kind(**coordinates, **kwargs), **place)


def draw_lines(figure: go.Figure, panel: Panel, scale: Scale,
               place: dict[str, int]) -> None:
    r"""Draws lines in a few widths: each takes a trace of its own."""
    assert panel.mark is not None
    share = panel.color / scale.high
    group = np.clip((share * WIDTHS).astype(int), 0, WIDTHS - 1)
    for i in np.unique(group):
        ends = panel.pos[group == i]
        path = np.full((len(ends), 3, panel.dim), np.nan)
        path[:, 0], path[:, 1] = panel.mark, ends
        strength = (i + 0.5) / WIDTHS
        color = sample_colorscale(COLORS, [strength])[0]
        add(figure, path.reshape(-1, panel.dim), place, name='lines',
            mode='lines', hoverinfo='skip', opacity=0.3 + 0.7 * strength,
            customdata=np.repeat(panel.color[group == i], 3),
            line={'color': color, 'width': 0.5 + 5 * strength})


def draw_balls(figure: go.Figure, panel: Panel,
               place: dict[str, int]) -> None:
    assert panel.centers is not None and panel.radii is not None
    assert panel.outline is not None
    mesh, faces = unit_sphere()
    for center, radius, color in zip(panel.centers, panel.radii,
                                     panel.outline, strict=True):
        if panel.dim == 2:
            (x0, y0), (x1, y1) = center - radius, center + radius
            figure.add_shape(type='circle', x0=x0, x1=x1, y0=y0, y1=y1,
                             line={'color': color, 'width': 1.5},
                             fillcolor=color, opacity=0.15, layer='below',
                             **place)
            continue
        x, y, z = (center + radius * mesh).T
        i, j, k = faces.T
        figure.add_trace(go.Mesh3d(
            x=x, y=y, z=z, i=i, j=j, k=k, color=color, opacity=0.1,
            name='ball', hoverinfo='skip', flatshading=False), **place)


def unit_sphere(rings: int = 12, around: int = 24) -> tuple[NDArray, NDArray]:
    r"""Returns the points and triangles of a sphere."""
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, rings + 1),
        np.linspace(0, 2 * np.pi, around, endpoint=False), indexing='ij')
    points = np.stack([np.sin(theta) * np.cos(phi),
                       np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
    number = np.arange(points[..., 0].size).reshape(theta.shape)
    below, beside = number[1:], np.roll(number, -1, axis=1)
    upper = np.stack([number[:-1], below, beside[:-1]], axis=-1)
    lower = np.stack([beside[:-1], below, beside[1:]], axis=-1)
    return points.reshape(-1, 3), np.concatenate([upper, lower]).reshape(-1, 3)
