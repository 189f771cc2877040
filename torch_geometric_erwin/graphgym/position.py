r"""Positions of nodes that have none: this is where to change them."""

from collections.abc import Callable
from typing import Any

from torch_geometric.transforms import (
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    BaseTransform,
)


def laplacian(dim: int) -> BaseTransform:
    return AddLaplacianEigenvectorPE(dim, attr_name='pos', is_undirected=True)


def random_walk(dim: int) -> BaseTransform:
    return AddRandomWalkPE(dim, attr_name='pos')


POSITIONS: dict[str, Callable[[int], BaseTransform]] = {
    'laplacian': laplacian,
    'random_walk': random_walk,
}
HINT = ("add some to the dataset, by PyG's transforms "
        "\"AddLaplacianEigenvectorPE(k, attr_name='pos')\" or "
        "\"AddRandomWalkPE(walk_length, attr_name='pos')\", or by "
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
