from typing import Any

import torch
from torch_geometric.data import Data

from benchmarks.experiments.data.point_clouds import PointClouds
from torch_geometric_erwin.datasets import Cosmology, HaloMock


class HaloMockData(PointClouds):
    r"""Velocities, in km/s, from the positions of
    :class:`~torch_geometric_erwin.datasets.HaloMock`, in Mpc/h.

    Args:
        root (str, optional): Where to keep the clouds.
            (default: :obj:`"runs/data/halo_mock"`)
        num_train (int, optional): Number of boxes to train on.
            (default: :obj:`64`)
        num_val (int, optional): Number of boxes to validate on.
            (default: :obj:`16`)
        num_test (int, optional): Number of boxes to test on.
            (default: :obj:`16`)
        num_halos (int, optional): See the dataset, as for the options that
            follow. (default: :obj:`2000`)
        box_size (float, optional): (default: :obj:`400.`)
        grid_size (int, optional): (default: :obj:`64`)
        bias (float, optional): (default: :obj:`1.`)
        smoothing (float, optional): (default: :obj:`6.`)
        redshift (float, optional): (default: :obj:`0.`)
        cosmology (Cosmology, optional): (default: that of the dataset)
        data_seed (int, optional): Another one makes other clouds.
            (default: :obj:`0`)
        **kwargs (optional): Arguments of :class:`PointClouds`.
    """
    def __init__(
        self,
        root: str = 'runs/data/halo_mock',
        num_train: int = 64,
        num_val: int = 16,
        num_test: int = 16,
        num_halos: int = 2000,
        box_size: float = 400.,
        grid_size: int = 64,
        bias: float = 1.,
        smoothing: float = 6.,
        redshift: float = 0.,
        cosmology: Cosmology | None = None,
        data_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.sizes = {'train': num_train, 'val': num_val, 'test': num_test}
        self.options: dict[str, Any] = {
            'num_halos': num_halos, 'box_size': box_size,
            'grid_size': grid_size, 'bias': bias, 'smoothing': smoothing,
            'redshift': redshift, 'cosmology': cosmology, 'seed': data_seed,
        }

    def load(self) -> dict[str, list[Data]]:
        return {
            split: [to_cloud(data) for data in HaloMock(
                self.root, split, num_clouds, **self.options)]
            for split, num_clouds in self.sizes.items()
        }


def to_cloud(data: Data) -> Data:
    x = torch.ones(data.num_nodes, 1)  # tracers are all alike
    return Data(x=x, pos=data.pos, y=data.y, box=data.box)
