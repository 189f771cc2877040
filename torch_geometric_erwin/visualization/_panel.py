r"""What a picture shows, whichever library draws it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BACKENDS = ('matplotlib', 'plotly')
GREY = '#d0d0d0'
MARK = '#d55e00'
AXES = 'xyz'


@dataclass(frozen=True)
class Scale:
    r"""The scale of the colours of all panels.

    Args:
        label: What the colours stand for.
        low: The value of the first colour.
        high: The value of the last colour.
        log: Whether colours follow the logarithm.
    """
    label: str
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Panel:
    r"""One picture of a cloud in :math:`D` dimensions.

    Args:
        pos: The points in colour, shape :math:`(N, D)`.
        color: Their values on a scale, or their colours, shape :math:`(N)`.
        faint: The points in grey, shape :math:`(M, D)`.
        title: The text above.
        mark: A point to mark, shape :math:`(D)`.
        linked: Whether lines lead from there to the points in colour.
        centers: The centres of balls to outline, shape :math:`(B, D)`.
        radii: Their radii, shape :math:`(B)`.
        outline: Their colours, shape :math:`(B)`.
    """
    pos: NDArray
    color: NDArray
    faint: NDArray
    title: str = ''
    mark: NDArray | None = None
    linked: bool = False
    centers: NDArray | None = None
    radii: NDArray | None = None
    outline: NDArray | None = None

    @property
    def dim(self) -> int:
        return self.pos.shape[1]

    def corners(self) -> NDArray:
        r"""The box around all that is drawn, shape :math:`(2, D)`."""
        parts = [self.pos, self.faint]
        if self.centers is not None and self.radii is not None:
            reach = self.radii[:, None]
            parts += [self.centers - reach, self.centers + reach]
        every = np.concatenate(parts)
        return np.stack([every.min(0), every.max(0)])


def draw(panels: Sequence[Panel], scale: Scale | None, backend: str,
         units: str | None, ax: Any) -> Any:
    r"""Draws the panels and returns the figure.

    Raises:
        ImportError: If the library that draws is not installed.
        ValueError: If :obj:`ax` does not fit the panels.
    """
    name = {'matplotlib': '_matplotlib', 'plotly': '_plotly'}[backend]
    try:
        import_module(backend)
    except ImportError as error:
        raise ImportError(
            f"Plots with backend={backend!r} need {backend}: pip install "
            f"'torch_geometric_erwin[visualization]'") from error
    drawing = import_module(f'torch_geometric_erwin.visualization.{name}')
    labels = [f'{axis} ({units})' if units else axis for axis in AXES]
    return drawing.draw_panels(panels, scale, labels, ax)


def to_array(value: Tensor) -> NDArray:
    return value.detach().cpu().double().numpy()


def check_backend(backend: Any, ax: Any) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"Expected 'backend' to be one of "
                         f"{', '.join(map(repr, BACKENDS))} "
                         f"(got {backend!r})")
    if ax is not None and backend != 'matplotlib':
        raise ValueError(f"Expected 'ax' to be None unless matplotlib draws "
                         f"(got backend={backend!r})")


def check_pos(pos: Any, name: str = 'pos') -> NDArray:
    r"""Returns positions that can be drawn, as an array."""
    if not isinstance(pos, Tensor):
        raise ValueError(f"Expected '{name}' to be a tensor (got "
                         f"{type(pos).__name__})")
    if pos.dim() != 2 or pos.size(1) not in (2, 3):
        raise ValueError(f"Expected '{name}' to have shape [num_points, 2] "
                         f"or [num_points, 3] (got {list(pos.shape)})")
    array = to_array(pos)
    if not np.isfinite(array).all():
        raise ValueError(f"Expected '{name}' to have finite coordinates (got "
                         f"NaN or infinity)")
    return array


def check_index(name: str, value: Any, size: int) -> None:
    if (isinstance(value, bool) or not isinstance(value, (int, np.integer))
            or not 0 <= value < size):
        raise ValueError(f"Expected '{name}' to be in [0, {size}) "
                         f"(got {value!r})")
