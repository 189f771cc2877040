r"""Where nodes have their positions from."""

from collections.abc import Callable
from typing import Any

from torch_geometric.transforms import BaseTransform

from torch_geometric_erwin.transforms import AddLaplacianPos, AddRandomWalkPos

POSITIONS: dict[str, Callable[[int], BaseTransform]] = {
    'laplacian': AddLaplacianPos,
    'random_walk': AddRandomWalkPos,
}
HINT = ("add some to the dataset, by the transforms 'AddLaplacianPos' or "
        "'AddRandomWalkPos' of 'torch_geometric_erwin.transforms', or by "
        "'dataset.format: Erwin' with 'erwin.pos' one of "
        + ', '.join(map(repr, POSITIONS)))


def check_positions(data: Any, name: str = 'data') -> None:
    if data.get('pos') is None:
        raise ValueError(f"Expected '{name}' to have positions 'pos' (got "
                         f"none: {HINT})")


class OwnPositions(BaseTransform):
    r"""Takes the positions that data have."""
    def forward(self, data: Any) -> Any:
        check_positions(data)
        return data


def position_transform(name: Any, dim: int) -> BaseTransform:
    r"""Returns what sees to it that data have positions.

    Raises:
        ValueError: If nothing has that name.
    """
    if name == 'pos':
        return OwnPositions()
    if name not in POSITIONS:
        names = ', '.join(map(repr, ('pos', *POSITIONS)))
        raise ValueError(f"Expected 'cfg.erwin.pos' to be one of {names} "
                         f"(got {name!r})")
    return POSITIONS[name](dim)
