import math
from collections.abc import Sequence
from typing import Any

from torch_geometric.data import Batch, Data
from torch_geometric.typing import OptTensor

from benchmarks.experiments.data.augment import augment
from benchmarks.experiments.data.checks import check_clouds
from benchmarks.experiments.data.clouds import SPLITS, Clouds


class PointClouds(Clouds):
    r"""Clouds with features :obj:`x` :math:`(N, F)`, positions :obj:`pos`
    and one vector to learn for each point, :obj:`y`, both :math:`(N, D)`, and
    edges :obj:`box` :math:`(1, D)` if they are periodic. Derived classes
    :meth:`load` them.

    Args:
        augment (bool, optional): If set to :obj:`True`, turns training
            clouds at random, by right angles if they are periodic, mirrors
            them, and shifts periodic ones. (default: :obj:`True`)
        **kwargs (optional): Arguments of :class:`Clouds`.
    """
    is_vector = True  # what there is to learn turns with the cloud

    def __init__(self, augment: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.augment = augment

    def load(self) -> dict[str, list[Data]]:
        r"""Returns the clouds of :obj:`"train"`, :obj:`"val"` and
        :obj:`"test"`.
        """
        raise NotImplementedError

    def prepare_data(self) -> None:
        self.load()  # one process writes the files that all read

    def setup(self, stage: str | None = None) -> None:
        r"""Loads and checks all clouds, so that errors come before training.

        Raises:
            ValueError: If clouds cannot be learned from.
        """
        if self.clouds:
            return
        clouds = self.load()
        like = clouds['train'][0]
        for split in SPLITS:
            check_clouds(clouds[split], split, like, self.num_targets(like))
        self.length = length_unit(clouds['train'])
        self.mean, self.scale = self.target_units(clouds['train'])
        self.clouds = clouds

    def num_targets(self, like: Data) -> int:
        r"""Returns how many numbers there are to learn for each point."""
        return like.pos.size(1)

    def target_units(self, clouds: Sequence[Data]) -> tuple[Any, Any]:
        r"""Returns what networks' output is shifted and multiplied by."""
        return 0., target_scale(clouds)

    @property
    def num_features(self) -> int:
        return self.clouds['train'][0].x.size(1)

    @property
    def dim(self) -> int:
        return self.clouds['train'][0].pos.size(1)

    @property
    def out_channels(self) -> int:
        return self.num_targets(self.clouds['train'][0])

    def draw(self, batch: Batch) -> Batch:
        return self.change(batch) if self.augment else batch

    def change(self, batch: Batch) -> Batch:
        r"""Changes training clouds, and what there is to learn with them."""
        return augment(batch)


def length_unit(clouds: Sequence[Data]) -> float:
    r"""Returns the mean spacing of points, that is, the edge of the cube that
    one of them has for itself.
    """
    volume = sum(edges(data).double().prod().item() for data in clouds)
    number, dim = sum(len(data.pos) for data in clouds), clouds[0].pos.size(1)
    if volume <= 0:
        raise ValueError("Expected the training clouds to extend in all "
                         "dimensions (got flat ones)")
    return (volume / number)**(1 / dim)


def edges(data: Data) -> OptTensor:
    r"""Returns the edges of the box, or of the smallest one that would do."""
    if 'box' in data:
        return data.box
    return data.pos.amax(dim=0) - data.pos.amin(dim=0)


def target_scale(clouds: Sequence[Data]) -> float:
    r"""Returns the root mean square of the targets' components."""
    square = sum(data.y.double().square().sum().item() for data in clouds)
    if square == 0:
        raise ValueError("Expected the training clouds to have targets other "
                         "than zero (got none)")
    return math.sqrt(square / sum(data.y.numel() for data in clouds))
