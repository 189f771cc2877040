r"""Pictures of what networks learned."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Batch, Data
from torchmetrics.functional import r2_score

from benchmarks.experiments.data.augment import wrap
from benchmarks.experiments.regression import Regression
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.visualization import (
    plot_ball_tree,
    plot_receptive_field,
)

Curves = Mapping[str, Mapping[str, list[tuple[float, float]]]]
IN_SLAB = 350  # points: as many arrows as one can tell apart
COLORS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7']


def draw_all(
    out: Path,
    cloud: Data,
    preds: Mapping[str, Tensor],
    y: Tensor,
    curves: Curves,
    models: Mapping[str, Regression],
    units: tuple[str, str, str],
) -> None:
    r"""Draws all pictures.

    Args:
        out: The folder.
        cloud: The first of the test clouds.
        preds: Predictions for all test clouds, one after the other.
        y: What is true of them.
        curves: What was logged during training.
        models: The networks.
        units: The quantity that is predicted, its unit, that of lengths.
    """
    quantity, unit, length = units
    size = len(cloud.pos)
    center = cloud.pos[central_point(cloud)]
    cloud = centered(cloud, center)
    arrows = {'truth': y[:size], **{k: v[:size] for k, v in preds.items()}}
    pictures = {
        'predictions': draw_predictions(preds, y, f'{quantity}, {unit}'),
        'slice': draw_slice(cloud, arrows, length),
        'curves': draw_curves(curves),
        'ball_tree': draw_tree(cloud, length),
        'receptive_field': draw_fields(cloud, models, length),
    }
    for name, figure in pictures.items():
        figure.savefig(out / f'{name}.png', dpi=160, bbox_inches='tight')


def central_point(cloud: Data) -> int:
    r"""The point that is nearest to the middle."""
    middle = (cloud.pos.amin(dim=0) + cloud.pos.amax(dim=0)) / 2
    return int((cloud.pos - middle).square().sum(dim=1).argmin())


def centered(cloud: Data, center: Tensor) -> Data:
    r"""Moves a periodic cloud so that a place is in the middle."""
    cloud = cloud.clone()
    if 'box' in cloud:
        cloud.pos = wrap(cloud.pos - center + cloud.box / 2, cloud.box)
    return cloud


def slab(cloud: Data) -> Tensor:
    r"""The points whose last coordinate is the nearest to the middle's."""
    height = cloud.pos[:, -1] - cloud.pos[central_point(cloud), -1]
    return height.abs().argsort()[:IN_SLAB].sort()[0]


def draw_predictions(preds: Mapping[str, Tensor], y: Tensor,
                     label: str) -> Figure:
    figure = Figure(figsize=(3.4 * len(preds), 3.5), layout='constrained')
    axes = figure.subplots(1, len(preds), sharey=True, squeeze=False)[0]
    true = y.flatten().numpy()
    limit = float(np.quantile(np.abs(true), 0.999))
    for ax, (name, pred) in zip(axes, preds.items(), strict=True):
        bins = ax.hexbin(
            true, pred.flatten().numpy(), gridsize=70, norm=LogNorm(vmin=1),
            extent=(-limit, limit, -limit, limit), cmap='viridis',
            linewidths=0.2)
        ax.axline((0, 0), slope=1, color='black', lw=0.8, ls='--')
        r2 = r2_score(pred, y, multioutput='variance_weighted')
        ax.set(title=f'{name}\nR² = {r2:.3f}', xlabel=f'true {label}',
               xlim=(-limit, limit), ylim=(-limit, limit), aspect='equal')
    axes[0].set_ylabel(f'predicted {label}')
    figure.colorbar(bins, ax=list(axes), label='components', shrink=0.8)
    return figure


def draw_slice(cloud: Data, arrows: Mapping[str, Tensor],
               length: str) -> Figure:
    figure = Figure(figsize=(3.3 * len(arrows), 3.9), layout='constrained')
    axes = figure.subplots(1, len(arrows), sharey=True, squeeze=False)[0]
    inside = slab(cloud)
    pos = cloud.pos[inside].numpy()
    truth = arrows['truth'][inside, :2].norm(dim=1)
    # The longest of a few percent would make all others points.
    longest = float(truth.quantile(0.95))
    scale = longest / (0.1 * float(np.ptp(pos[:, 0])))
    depth = np.ptp(pos[:, 2])
    for ax, (name, vector) in zip(axes, arrows.items(), strict=True):
        u, v = vector[inside, :2].T.numpy()
        short = np.hypot(u, v).clip(min=longest) / longest
        ax.quiver(pos[:, 0], pos[:, 1], u / short, v / short,
                  np.arctan2(v, u), cmap='hsv', clim=(-np.pi, np.pi),
                  angles='xy', scale_units='xy', scale=scale, width=0.006)
        ax.scatter(pos[:, 0], pos[:, 1], s=1.5, color='0.3', lw=0)
        ax.set(title=name, xlabel=f'x, {length}', aspect='equal')
    axes[0].set_ylabel(f'y, {length}')
    figure.suptitle(f'{len(inside)} points in a slice of {depth:.3g} '
                    f'{length}', fontsize='medium')
    return figure


def draw_curves(curves: Curves) -> Figure:
    figure = Figure(figsize=(8, 3.3), layout='constrained')
    left, right = figure.subplots(1, 2)
    for color, (name, logged) in zip(COLORS, curves.items(), strict=False):
        minutes, loss = np.array(logged['train/loss']).T
        left.plot(minutes, loss, color=color, alpha=0.2, lw=0.6)
        left.plot(minutes, smooth(loss), color=color, label=name)
        right.plot(*np.array(logged['val/r2']).T, '.-', color=color,
                   label=name)
    left.set(xlabel='minutes of training', ylabel='training loss')
    right.set(xlabel='minutes of training', ylabel='R², validation')
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    return figure


def smooth(values: np.ndarray) -> np.ndarray:
    r"""Averages over a window, smaller at the ends."""
    width = len(values) // 20
    padded = np.pad(values, width, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1)
    return np.nanmean(windows, axis=1)


def draw_tree(cloud: Data, length: str) -> Figure:
    r"""Draws the ball tree of the slice: one of all points would hide most
    of its balls behind others.
    """
    pos = cloud.pos[slab(cloud), :2]
    tree = BallTree.build(pos, ball_size=[8, 8, 8], strides=[4, 4],
                          rotations=(0., ))
    figure = plot_ball_tree(tree, level=[0, 1, 2], units=length)
    figure.suptitle(f'The ball tree of the {len(pos)} points in the slice',
                    fontsize='medium')
    return figure


def draw_fields(cloud: Data, models: Mapping[str, Regression],
                length: str) -> Figure:
    r"""Draws who in a slice counts for the point in its middle."""
    inside = slab(cloud)
    x = cloud.x[inside].clone().requires_grad_()
    data = Batch.from_data_list([cloud])
    data.x = cloud.x.index_put((inside, ), x)
    outs = {name: model(data)[inside]
            for name, model in models.items()}
    point = int((inside == central_point(cloud)).nonzero())
    return plot_receptive_field(x, outs, cloud.pos[inside, :2], point,
                                units=length)
