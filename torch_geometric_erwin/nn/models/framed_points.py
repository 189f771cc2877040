r"""What networks within frame averaging are told."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import OptTensor


@dataclass
class FramedPoints:
    r"""What a network is told of a batch, with positions and vectors along
    the axes of their clouds.
    """
    x: OptTensor
    vec: OptTensor
    edge_index: OptTensor
    pos: Tensor
    batch: Tensor
    num_clouds: int
    kwargs: dict[str, Any]

    def seen(self, signs: Tensor) -> tuple[list[Any], dict[str, Any]]:
        r"""Returns arguments that show all points in some frames, one after
        the other, for signs of shape :math:`(F, N, D)`.
        """
        times = signs.size(0)
        frame = torch.arange(times, device=signs.device).view(-1, 1)
        kwargs = {k: _repeat(v, times) for k, v in self.kwargs.items()}
        kwargs['pos'] = (signs.to(self.pos.dtype) * self.pos).flatten(0, 1)
        kwargs['batch'] = (self.batch + frame * self.num_clouds).view(-1)
        if self.edge_index is not None:
            shift = frame * self.batch.size(0)
            edges = self.edge_index.unsqueeze(1) + shift
            kwargs['edge_index'] = edges.flatten(1)
        x = _repeat(self.x, times)
        if self.vec is not None:
            vec = signs.unsqueeze(3).to(self.vec.dtype) * self.vec
            vec = vec.flatten(0, 1).flatten(1)
            x = vec if x is None else torch.cat([x, vec], dim=1)
        return [x], kwargs


def _repeat(value: Any, times: int) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    return value.repeat(times, *[1] * (value.dim() - 1))


def check_argument(name: str, value: Any, num_points: int,
                    edge_index: OptTensor) -> None:
    if name in ('box', 'pbc', 'edge_shift', 'tree', 'ptr'):
        if value is not None:
            raise ValueError(f"Expected no '{name}': clouds are told by "
                             f"'pos' and 'batch', are not periodic, and have "
                             f"another tree in each frame (got one)")
    elif isinstance(value, Tensor) and value.dim() > 0:
        if not name.startswith('edge_'):
            check_rows(name, value, num_points, 'point')
        elif edge_index is None:
            raise ValueError(f"Expected '{name}' to be given along with "
                             f"'edge_index' (got it alone)")
        else:
            check_rows(name, value, edge_index.size(1), 'edge')


def check_rows(name: str, value: Any, size: int, what: str) -> None:
    if (not isinstance(value, Tensor) or value.dim() == 0
            or value.size(0) != size):
        raise ValueError(f"Expected '{name}' to be a tensor with one row per "
                         f"{what}, {size} (got {describe(value)})")


def describe(value: Any) -> str:
    return (f'{value.dtype} of shape {list(value.shape)}'
            if isinstance(value, Tensor) else type(value).__name__)
