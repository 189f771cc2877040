r"""How flows go on, by networks that were trained before: pictures of what
they predict for a simulation, and how their errors grow.

Run it as :obj:`python -m benchmarks.experiments.rollouts --help`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor
from torch_geometric.data import Dataset
from torch_geometric.loader import DataLoader

from benchmarks.experiments.demo import load_data
from benchmarks.experiments.flow_figures import draw_errors, draw_vorticity
from benchmarks.experiments.rollout_error import RolloutError
from benchmarks.experiments.unsteady_flow import (
    UnsteadyFlow,
    check_finite,
    persistence,
)

TRUTH, PERSISTENCE = 'truth', 'as it was'


@torch.no_grad()
def roll_out(model: UnsteadyFlow, windows: Dataset,
             drawn: int) -> tuple[Tensor, Tensor]:
    r"""Returns predictions for the window to draw, shape :math:`(N, S, 4)`,
    and errors at each step, :math:`(S - 1, 2)`, over all of them.
    """
    error = RolloutError()
    for index, batch in enumerate(DataLoader(windows, batch_size=1)):
        states = model(batch)
        check_finite(states)
        error.update(states[:, 1:], batch.y[:, 1:], batch.batch)
        if index == drawn:
            shown = states
    return shown, error.compute()


def stay(windows: Dataset) -> Tensor:
    r"""Errors at each step if flows stayed as they are."""
    error = RolloutError()
    for batch in DataLoader(windows, batch_size=1):
        error.update(persistence(batch)[:, 1:], batch.y[:, 1:], batch.batch)
    return error.compute()


def rollouts(
    checkpoints: dict[str, Path],
    task: str = 'moving_jet',
    simulation: int = 0,
    steps: Sequence[int] = (1, 10, 25, 50, 100),
    out: Path = Path('runs/rollouts'),
    data: tuple[str, ...] = (),
) -> None:
    r"""Predicts the test flows of a task and draws pictures.

    Args:
        checkpoints: What to call each network, and where it is.
        task: What the name of the configuration of the data is.
        simulation: Which of the test flows to draw.
        steps: Which of its steps.
        out: The folder for pictures.
        data: Other options for the data than those of the configuration, such
            as :obj:`num_test=1`.
    """
    console = Console()
    flows = load_data(task, [f'--data.{option}' for option in data])
    windows = flows.clouds['test']
    window = windows[simulation]
    states, curves = {TRUTH: window.y}, {PERSISTENCE: stay(windows)}
    for name, path in checkpoints.items():
        console.print(f'Rolling out {name}')
        model = UnsteadyFlow.load_from_checkpoint(path, map_location='cpu')
        states[name], curves[name] = roll_out(model.eval(), windows,
                                              simulation)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in {'vorticity': draw_vorticity(window, states, steps),
                         'errors': draw_errors(curves)}.items():
        figure.savefig(out / f'{name}.png', dpi=160, bbox_inches='tight')
    console.print(f'Pictures are in {out}.')


if __name__ == '__main__':
    auto_cli(rollouts, as_positional=False)
