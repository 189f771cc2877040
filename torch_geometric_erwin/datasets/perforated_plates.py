from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_erwin.datasets.drawn import (
    DrawnDataset,
    as_range,
    expect,
)
from torch_geometric_erwin.datasets.meshes import TRIANGLE, edges_of_cells
from torch_geometric_erwin.datasets.plane_stress import plane_stress
from torch_geometric_erwin.datasets.plate_mesh import (
    SIDE,
    curve,
    is_resolved,
    mesh_plate,
)
from torch_geometric_erwin.datasets.plate_shapes import (
    MOST,
    Hole,
    draw_holes,
)

TRIES = 1000


class PerforatedPlates(DrawnDataset):
    r"""Square plates with random holes under tension, and the stress in
    them, made on the fly by finite elements: the task of the elasticity
    benchmark of the `"Fourier Neural Operator with Learned Deformations for
    PDEs on General Geometries" <https://arxiv.org/abs/2207.05209>`_ paper
    (see :class:`~torch_geometric_erwin.datasets.PDEBenchmark`) without its
    files, and with several holes on demand.

    As there, a hole in the middle of the unit square has a radius of 0.2 to
    0.4 that varies at random with the direction, the bottom is clamped, the
    top is pulled upwards, and the other sides and the holes are free. Other
    than there, the plate is linear elastic, in plane stress, with a Poisson's
    ratio of one half; the benchmark's material is a hyperelastic,
    incompressible one (Rivlin-Saunders). Its strains are small, since its
    moduli are thousands of times as large as the tension: then linear
    elasticity is what both come to. The logit of the radius is a Gaussian
    field as there, but without its short waves. Several holes are smaller,
    anywhere, and at least 0.08 apart and from the sides. Holes that points do
    not resolve are drawn again.

    Points are the corners of triangles, as evenly spread as can be. Stresses
    are solved for by :func:`~torch_geometric_erwin.datasets.plane_stress` on
    a mesh of four curved, quadratic triangles for each of these. Those of
    972 points differed from those on a mesh of 64 by 0.5 to 1.1 %
    (relative L2). At both lower corners the exact stress is infinite, and
    what is found there is that of the mesh. Requires scikit-fem and SciPy.

    Each cloud has

    * :obj:`pos` of shape :math:`(N, 2)`, in units of the side of the plate,
    * the von Mises stress :obj:`y` of shape :math:`(N, 1)`, in units of the
      tension: how much the stress is concentrated,
    * :obj:`stress` of shape :math:`(N, 3)`, its :math:`xx`, :math:`yy` and
      :math:`xy` components, in the same unit,
    * :obj:`face` of shape :math:`(3, T)`, triangles, counterclockwise, and
      :obj:`edge_index` of shape :math:`(2, E)`, their sides in both
      directions.

    The first clouds of a larger dataset are those of a smaller one.

    Args:
        root (str): Where to keep the clouds.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`:
            clouds that share nothing. (default: :obj:`"train"`)
        num_clouds (int, optional): Number of plates. (default: :obj:`64`)
        num_points (int, optional): How many points each has; at least 200
            for each hole. (default: :obj:`972`)
        num_holes (int or tuple, optional): Number of holes, or the least and
            the most; at most nine. (default: :obj:`1`)
        seed (int, optional): Another one makes other clouds.
            (default: :obj:`0`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)
        pre_transform (callable, optional): Applied before clouds are kept.
            (default: :obj:`None`)
        pre_filter (callable, optional): Whether to keep a cloud.
            (default: :obj:`None`)
        force_reload (bool, optional): Whether to make kept clouds again.
            (default: :obj:`False`)

    Raises:
        ImportError: If scikit-fem is not installed and clouds are made.
        ValueError: If an argument makes no plates, or :obj:`pre_transform`
            or :obj:`pre_filter` cannot be told from others of its kind.
    """
    def __init__(
        self,
        root: str,
        split: str = 'train',
        num_clouds: int = 64,
        num_points: int = 972,
        num_holes: int | tuple[int, int] = 1,
        seed: int = 0,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        expect(num_clouds > 0, 'num_clouds', 'positive', num_clouds)
        self.num_holes = as_range('num_holes', num_holes)
        most = self.num_holes[1]
        expect(most <= MOST, 'num_holes', f'at most {MOST}', num_holes)
        expect(num_points >= 200 * most, 'num_points',
               f'at least 200 for each of {most} holes', num_points)
        self.num_points = num_points
        super().__init__(root, split, num_clouds, seed, transform,
                         pre_transform, pre_filter, force_reload)

    def facts(self) -> tuple:
        return self.num_points, self.num_holes

    def make(self, i: int) -> Data:
        r"""Makes the :obj:`i`-th cloud of the split."""
        rng = self.generator(i)
        low, high = self.num_holes
        count = int(torch.randint(low, high + 1, (1, ), generator=rng))
        holes = draw_plate(count, self.num_points, rng)
        points, triangles = mesh_plate(holes, self.num_points, rng)
        found = plane_stress(points, triangles, pull, clamp,
                             lambda x: curve(x, holes))
        face = torch.from_numpy(triangles).long()
        return Data(
            pos=_single(points),
            y=_single(found.von_mises)[:, None],
            stress=_single(found.stress),
            edge_index=edges_of_cells(face, TRIANGLE, self.num_points)[0],
            face=face.t().contiguous(),
        )

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'split={self.split!r}, num_points={self.num_points}, '
                f'num_holes={self.num_holes})')


def pull(x: np.ndarray, normal: np.ndarray) -> np.ndarray:
    r"""Returns the traction of a tension of one on the top."""
    top = x[1] > 1 - SIDE
    return np.stack([np.zeros(top.shape), np.where(top, 1., 0.)])


def clamp(x: np.ndarray) -> np.ndarray:
    r"""Holds the bottom in both directions."""
    return np.stack([x[1] < SIDE] * 2)


def draw_plate(count: int, num_points: int,
               rng: torch.Generator) -> list[Hole]:
    r"""Draws holes until points resolve them."""
    for _ in range(TRIES):
        holes = draw_holes(count, rng)
        if is_resolved(holes, num_points):
            return holes
    raise RuntimeError(f'No plate of {TRIES} with {count} holes is resolved '
                       f'by {num_points} points')


def _single(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).float()
