r"""Pictures of flows that networks predicted."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.experiments.figures import COLORS
from benchmarks.experiments.rollout_error import running_mean


def vorticity(pos: Tensor, velocity: Tensor, face: Tensor) -> Tensor:
    r"""Returns how fast air turns in each triangle, counter-clockwise:
    :math:`\partial_x v_y - \partial_y v_x` of the linear finite elements,
    shape :math:`(F)`, and zero in those without area.

    Args:
        pos (Tensor): The nodes, shape :math:`(N, 2)`.
        velocity (Tensor): Their velocities, shape :math:`(N, 2)`.
        face (Tensor): The triangles, shape :math:`(3, F)`.
    """
    a, b, c = pos[face]
    u, v, w = velocity[face]
    area = cross(b - a, c - a)
    # The circulation along the sides, by the area.
    circulation = (((a - c) * (u + w)).sum(1) + ((b - a) * (u + v)).sum(1)
                   + ((c - b) * (v + w)).sum(1)) / 2
    return torch.where(area == 0, 0., 2 * circulation / area)


def cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def draw_vorticity(window: Data, states: Mapping[str, Tensor],
                   steps: Sequence[int]) -> Figure:
    r"""Draws the vorticity of several flows, one a row, at some steps.

    Args:
        window (Data): What :class:`~torch_geometric_erwin.datasets.EAGLE`
            holds of the simulation.
        states (dict): What to call each flow and its states, shape
            :math:`(N, S, 4)`.
        steps (list[int]): Which steps, one a column.
    """
    shape = len(states), len(steps)
    figure = Figure(figsize=(3.4 * shape[1] + 0.6, 1.8 * shape[0] + 0.4),
                    layout='constrained')
    axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    first = next(iter(states.values()))
    limit = max(float(turning(window, first, step).abs().quantile(0.99))
                for step in steps)
    for row, (name, state) in zip(axes, states.items(), strict=True):
        for ax, step in zip(row, steps, strict=True):
            picture = draw_flow(ax, window, state, step, limit)
        row[0].set_ylabel(f'{name}\ny')
    for ax, step in zip(axes[0], steps, strict=True):
        ax.set_title(f'step {step}')
    for ax in axes[-1]:
        ax.set_xlabel('x')
    figure.colorbar(picture, ax=axes, label='vorticity', extend='both',
                    shrink=0.8)
    return figure


def draw_flow(ax: Axes, window: Data, state: Tensor, step: int,
              limit: float) -> object:
    x, y = window.pos_window[:, step].T.numpy()
    picture = ax.tripcolor(
        x, y, faces(window, step).T.numpy(),
        facecolors=turning(window, state, step).numpy(), cmap='RdBu_r',
        vmin=-limit, vmax=limit, rasterized=True)
    ax.set_aspect('equal')
    return picture


def turning(window: Data, state: Tensor, step: int) -> Tensor:
    return vorticity(window.pos_window[:, step], state[:, step, :2],
                     faces(window, step))


def faces(window: Data, step: int) -> Tensor:
    return window.face[:, window.face_step == step]


def draw_errors(curves: Mapping[str, Tensor]) -> Figure:
    r"""Draws errors against the number of steps that were predicted: those
    of each step, thin, and their average up to it.

    Args:
        curves (dict): What :class:`RolloutError` computes, shape
            :math:`(T, 2)`, of each network.
    """
    figure = Figure(figsize=(8, 3.3), layout='constrained')
    for i, (ax, name) in enumerate(zip(
            figure.subplots(1, 2), ('velocity', 'pressure'), strict=True)):
        for color, (net, curve) in zip(palette(len(curves)), curves.items(),
                                       strict=True):
            steps = np.arange(1, len(curve) + 1)
            ax.plot(steps, curve[:, i].numpy(), color=color, lw=0.6,
                    alpha=0.5)
            ax.plot(steps, running_mean(curve)[:, i].numpy(), color=color,
                    label=net)
        ax.set(xlabel='steps', ylabel=f'RMSE of the {name}',
               xscale='log', yscale='log')
        ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def palette(number: int) -> list[str]:
    return [COLORS[i] if i < len(COLORS) else f'C{i}' for i in range(number)]
