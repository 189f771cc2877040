r"""Checks of clouds before anybody learns from them."""

from collections.abc import Sequence

from torch import Tensor
from torch_geometric.data import Data


def check_clouds(clouds: Sequence[Data], split: str, like: Data,
                 channels: int) -> None:
    r"""Checks that clouds are whole and like a given one, with targets of so
    many channels.
    """
    if len(clouds) == 0:
        raise ValueError(f"Expected at least one cloud in '{split}' (got "
                         f"none)")
    for i, data in enumerate(clouds):
        check_cloud(data, f'cloud {i} of {split!r}', like, channels)


def check_cloud(data: Data, name: str, like: Data, channels: int) -> None:
    size, dim = data.pos.shape
    if size == 0:
        raise ValueError(f"Expected {name} to have points (got none)")
    check_shape(data.x, 'x', [size, like.x.size(1)], name)
    check_shape(data.pos, 'pos', [size, like.pos.size(1)], name)
    check_shape(data.y, 'y', [size, channels], name)
    if ('box' in data) != ('box' in like):
        raise ValueError(f"Expected all clouds or none to have a 'box' "
                         f"(got another choice in {name})")
    if 'box' in data:
        check_shape(data.box, 'box', [1, dim], name)
        if not bool((data.box > 0).all()):
            raise ValueError(f"Expected the 'box' of {name} to have positive "
                             f"edges (got {data.box.flatten().tolist()})")


def check_shape(value: Tensor, key: str, shape: list[int],
                name: str) -> None:
    if list(value.shape) != shape:
        raise ValueError(f"Expected '{key}' of {name} to have shape {shape} "
                         f"(got {list(value.shape)})")
    if not bool(value.isfinite().all()):
        raise ValueError(f"Expected '{key}' of {name} to be finite (got "
                         f"others)")
