r"""ShapeNet-Car's files, of other clouds."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch_geometric.data import Data

from torch_geometric_erwin.datasets.drawn import expect

FOLDERS = 9


def write_shapenet_car(clouds: Iterable[Data], root: str | os.PathLike,
                       dynamic_pressure: float = 245.) -> list[Path]:
    r"""Writes clouds such as those of
    :class:`~torch_geometric_erwin.datasets.BluffBodies` the way ShapeNet-Car
    is kept once preprocessed, so that what reads the one reads the other.

    A cloud is a folder :obj:`root/preprocessed/param0/00000` with two
    tensors, float32, written by :func:`torch.save`: :obj:`mesh_points.th` of
    shape :math:`(N, 3)` in m, and :obj:`pressure.th` of shape :math:`(N)` in
    Pa. There :math:`y` is up and the air comes along :math:`+z`: our
    :math:`(x, y, z)` are its :math:`(z, x, y)`. Clouds spread over
    :obj:`param0` to :obj:`param8`; sorted by folder and name they are in the
    order given.

    Args:
        clouds (iterable): With :obj:`pos` of shape :math:`(N, 3)` and
            pressure coefficients :obj:`y` of shape :math:`(N, 1)`.
        root (str): Where to write; files of the same names are replaced.
        dynamic_pressure (float, optional): What a coefficient of 1 stands
            for, in Pa: :math:`\tfrac{1}{2} \rho U^2`, here of air of 1.225
            kg/m³ at 20 m/s. (default: :obj:`245.`)

    Returns:
        The folders, one for each cloud.

    Raises:
        ValueError: If a cloud has other shapes or the dynamic pressure is not
            positive.
    """
    expect(0 < dynamic_pressure < float('inf'), 'dynamic_pressure',
           'positive', dynamic_pressure)
    clouds = list(clouds)
    folders = []
    for i, cloud in enumerate(clouds):
        _check(cloud)
        folder = Path(root, 'preprocessed',
                      f'param{i * FOLDERS // len(clouds)}', f'{i:05d}')
        folder.mkdir(parents=True, exist_ok=True)
        pos, y = cloud.pos.float(), cloud.y.float()
        torch.save(pos[:, [1, 2, 0]].contiguous(), folder / 'mesh_points.th')
        torch.save(dynamic_pressure * y[:, 0], folder / 'pressure.th')
        folders.append(folder)
    return folders


def _check(cloud: Data) -> None:
    pos, y = cloud.pos, cloud.y
    expect(pos is not None and pos.dim() == 2 and pos.size(1) == 3, 'pos',
           'of shape (N, 3)', None if pos is None else tuple(pos.shape))
    expect(y is not None and y.shape == (len(pos), 1), 'y',
           f'of shape ({len(pos)}, 1)', None if y is None else tuple(y.shape))
