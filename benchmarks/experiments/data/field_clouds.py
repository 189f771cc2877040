from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from benchmarks.experiments.data.point_clouds import PointClouds

Units = dict[str, tuple[Tensor, Tensor]]


class FieldClouds(PointClouds):
    r"""Clouds with the values of :math:`C` fields to learn at each point,
    :obj:`y` :math:`(N, C)`, which stay what they are when clouds turn. What
    decides over them, such as the direction of a flow, need not turn along:
    clouds are not turned, and mirrored only along the :attr:`mirror_axis`,
    if there is one, about :attr:`mirror_at`. Derived classes
    :meth:`load_fields`.

    Features are the position and the :obj:`normal` of a point, where there
    is one, and what else is known of it, :obj:`x`. Positions, :obj:`x` and
    what networks are to return have zero mean and unit variance over all
    points of the training clouds, in each channel.

    Args:
        augment (bool, optional): If set to :obj:`True`, mirrors every other
            training cloud, drawn at random. (default: :obj:`False`)
        positions (bool, optional): If set to :obj:`False`, features are only
            those that turning and moving a cloud leaves alone, for networks
            that shall do so, too: :obj:`x`, or else the number one.
            (default: :obj:`True`)
        **kwargs (optional): Arguments of :class:`PointClouds`.

    Raises:
        ValueError: If clouds shall be mirrored but have no such axis.
    """
    is_vector = False
    mirror_axis: int | None = None  # fields stay when it is mirrored
    mirror_at = 0.

    def __init__(self, augment: bool = False, positions: bool = True,
                 **kwargs: Any) -> None:
        super().__init__(augment=augment, **kwargs)
        if augment and self.mirror_axis is None:
            raise ValueError("Expected 'augment' to be False for these data, "
                             "which may not be mirrored (got True)")
        self.positions = positions
        self.units: Units = {}

    def load_fields(self) -> dict[str, list[Data]]:
        r"""Returns the clouds of :obj:`"train"`, :obj:`"val"` and
        :obj:`"test"`, in the units of the data.
        """
        raise NotImplementedError

    def known_units(self) -> Units:
        r"""Returns the means and the standard deviations that a benchmark
        fixes for :obj:`pos`, :obj:`x` and :obj:`y`. Others are measured.
        """
        return {}

    def load(self) -> dict[str, list[Data]]:
        fields = self.load_fields()
        self.units = self.known_units()
        for key in ('pos', 'x', 'y'):
            if key not in self.units and key in fields['train'][0]:
                self.units[key] = measure_units(fields['train'], key)
        return {split: [self.to_cloud(data) for data in clouds]
                for split, clouds in fields.items()}

    def to_cloud(self, data: Data) -> Data:
        kept = {key: data[key] for key in ('normal', 'edge_index', 'face')
                if key in data}
        return Data(x=self.features(data), pos=data.pos, y=data.y, **kept)

    def features(self, data: Data) -> Tensor:
        parts = []
        if self.positions:
            parts.append(standardize(data.pos, self.units['pos']))
            parts += [data.normal] if 'normal' in data else []
        if 'x' in data:
            parts.append(standardize(data.x, self.units['x']))
        parts = parts or [torch.ones_like(data.pos[:, :1])]
        return torch.cat(parts, dim=1)

    def change(self, batch: Batch) -> Batch:
        sign = torch.randint(0, 2, (batch.num_graphs, ),
                             device=batch.pos.device) * 2 - 1
        return self.mirror(batch, sign[batch.batch])

    def mirror(self, batch: Batch, sign: Tensor) -> Batch:
        r"""Multiplies one coordinate of points and normals by a sign, shape
        :math:`(N)`, in their features, too.
        """
        axis, dim = self.mirror_axis, batch.pos.size(1)
        assert axis is not None  # or else there is no augmentation
        about = standardize(torch.tensor(self.mirror_at), self.units['pos'])
        batch.pos = reflect(batch.pos, axis, sign, self.mirror_at)
        if self.positions:
            batch.x = reflect(batch.x, axis, sign, about[axis].item())
        if 'normal' in batch:
            batch.normal = reflect(batch.normal, axis, sign)
            if self.positions:
                batch.x = reflect(batch.x, dim + axis, sign)
        return batch

    def num_targets(self, like: Data) -> int:
        return like.y[:1].numel()

    def target_units(self, clouds: Sequence[Data]) -> tuple[Tensor, Tensor]:
        # A benchmark may have one unit for all fields.
        ones = torch.ones(self.num_targets(clouds[0]))
        mean, std = self.units['y']
        return ones * mean, ones * std


def standardize(value: Tensor, units: tuple[Tensor, Tensor]) -> Tensor:
    mean, std = units
    return (value - mean) / std


def reflect(value: Tensor, column: int, sign: Tensor,
            about: float = 0.) -> Tensor:
    value = value.clone()
    value[:, column] = about + sign * (value[:, column] - about)
    return value


def measure_units(clouds: Sequence[Data], key: str) -> tuple[Tensor, Tensor]:
    r"""Returns the mean and the standard deviation of each channel."""
    value = torch.cat([data[key] for data in clouds]).double()
    std, mean = torch.std_mean(value, dim=0, correction=0)
    if not bool((std > 0).all()):
        raise ValueError(f"Expected each channel of '{key}' to vary among "
                         f"the training clouds (got standard deviations of "
                         f"{std.tolist()})")
    return mean.float(), std.float()


def hold_out(clouds: Sequence[Data], num_val: int) -> dict[str, list[Data]]:
    r"""Holds the last of the clouds to train on out for validation."""
    if not 0 < num_val < len(clouds):
        raise ValueError(f"Expected 'num_val' to hold out at least one of "
                         f"{len(clouds)} clouds and to leave others (got "
                         f"{num_val})")
    clouds = list(clouds)
    return {'train': clouds[:-num_val], 'val': clouds[-num_val:]}
