r"""The elasticity benchmark's files, of other clouds."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_erwin.datasets.drawn import expect
from torch_geometric_erwin.datasets.pde_files import BENCHMARKS, NUM_POINTS


def write_elasticity(clouds: Iterable[Data], root: str | os.PathLike,
                     tension: float = 100.) -> list[Path]:
    r"""Writes clouds such as those of
    :class:`~torch_geometric_erwin.datasets.PerforatedPlates` the way the
    elasticity benchmark is kept, so that
    :class:`~torch_geometric_erwin.datasets.PDEBenchmark` and whatever else
    reads the one reads the other, in the order given.

    Files are :obj:`root/elasticity/Meshes/Random_UnitCell_XY_10.npy` of shape
    :math:`(972, 2, n)` and :obj:`Random_UnitCell_sigma_10.npy` of shape
    :math:`(972, n)`, float32.

    Args:
        clouds (iterable): With :obj:`pos` of shape :math:`(972, 2)` and
            stresses :obj:`y` of shape :math:`(972, 1)`, in units of the
            tension.
        root (str): Where to write; files of the same names are replaced.
        tension (float, optional): What a stress of one stands for; the
            benchmark pulls by 100. (default: :obj:`100.`)

    Returns:
        Both files.

    Raises:
        ValueError: If there are no clouds, one has other shapes, or the
            tension is not positive.
    """
    expect(0 < tension < float('inf'), 'tension', 'positive', tension)
    clouds = list(clouds)
    expect(len(clouds) > 0, 'clouds', 'at least one', clouds)
    for cloud in clouds:
        _check(cloud)
    arrays = (torch.stack([cloud.pos for cloud in clouds], dim=2),
              tension * torch.cat([cloud.y for cloud in clouds], dim=1))
    paths = [Path(root, name) for name in BENCHMARKS['elasticity'].files]
    for path, array in zip(paths, arrays, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array.float().numpy())
    return paths


def _check(cloud: Data) -> None:
    for name, size in (('pos', 2), ('y', 1)):
        value = cloud.get(name)
        expect(value is not None and value.shape == (NUM_POINTS, size), name,
               f'of shape ({NUM_POINTS}, {size})',
               None if value is None else tuple(value.shape))
