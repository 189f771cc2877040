r"""Pictures of fields on surfaces: the truth, what a network predicts, and how
far it is off.

Run it as :obj:`python -m benchmarks.experiments.surfaces --help`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from torch import Tensor
from torch_geometric.data import Batch, Data

from benchmarks.experiments.demo import load_data
from benchmarks.experiments.regression import Regression


def draw(cloud: Data, preds: dict[str, Tensor], label: str,
         view: tuple[float, float] = (22., -130.)) -> Figure:
    r"""Draws a scalar field on the triangles of a cloud.

    Args:
        cloud: With :obj:`pos` :math:`(N, 3)`, :obj:`face` :math:`(3, T)` and
            the truth, :obj:`y` :math:`(N, 1)`.
        preds: Predictions by their names, each :math:`(N, 1)`.
        label: What the field is, with its unit.
        view: From where to look, elevation and azimuth in degrees.
    """
    truth = cloud.y[:, 0]
    limits = tuple(torch.quantile(truth, torch.tensor([0.01, 0.99])).tolist())
    errors = {name: pred[:, 0] - truth for name, pred in preds.items()}
    worst = max(error.abs().quantile(0.99).item() for error in errors.values())
    figure = Figure(figsize=(9, 2.1 * len(preds)), layout='constrained')
    axes = figure.subplots(len(preds), 3, squeeze=False,
                           subplot_kw={'projection': '3d'})
    for row, (name, pred) in zip(axes, preds.items(), strict=True):
        draw_field(row[0], cloud, truth, 'viridis', limits, 'truth', view)
        field = draw_field(row[1], cloud, pred[:, 0], 'viridis', limits, name,
                           view)
        error = draw_field(row[2], cloud, errors[name], 'RdBu_r',
                           (-worst, worst), f'{name}: error', view)
        for colors, ax in ((field, row[:2]), (error, row[2])):
            figure.colorbar(colors, ax=ax, label=label, shrink=0.6,
                            extend='both')
    return figure


def draw_field(ax, cloud: Data, field: Tensor,  # type: ignore[no-untyped-def]
               cmap: str, limits: tuple[float, float], title: str,
               view: tuple[float, float]) -> ScalarMappable:
    colors = ScalarMappable(Normalize(*limits), cmap)
    triangles = cloud.pos[cloud.face.t()].numpy()
    values = field[cloud.face].mean(dim=0).numpy()
    ax.add_collection3d(Poly3DCollection(
        triangles, facecolors=colors.to_rgba(values), linewidth=0.,
        antialiased=False))
    low, high = (getattr(np, end)(triangles, axis=(0, 1))
                 for end in ('min', 'max'))
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]),
           zlim=(low[2], high[2]), title=title)
    ax.set_box_aspect(high - low, zoom=1.4)
    ax.view_init(*view)
    ax.set_axis_off()
    return colors


@torch.no_grad()
def surfaces(
    checkpoints: dict[str, Path],
    out: Path = Path('runs/pressure.png'),
    cloud: int = 0,
    task: str = 'bluff_bodies',
    label: str = 'pressure coefficient',
    data: Sequence[str] = (),
) -> None:
    r"""Draws what networks predict for a test cloud.

    Args:
        checkpoints: Checkpoints of networks, by what to call them.
        out: Where to put the picture.
        cloud: The number of the test cloud.
        task: The task they learned.
        label: What the field is, with its unit.
        data: Other options for the data than those of the configuration.
    """
    clouds = load_data(task, [f'--data.{option}' for option in data])
    batch = Batch.from_data_list([clouds.clouds['test'][cloud]])
    preds = {name: Regression.load_from_checkpoint(
        path, map_location='cpu').eval()(batch)
        for name, path in checkpoints.items()}
    draw(batch[0], preds, label).savefig(out, dpi=160, bbox_inches='tight')


if __name__ == '__main__':
    auto_cli(surfaces, as_positional=False)
