from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_erwin.datasets.body_shapes import (
    BodyShape,
    is_sound,
    panel_counts,
)
from torch_geometric_erwin.datasets.drawn import (
    DrawnDataset,
    as_range,
    expect,
)
from torch_geometric_erwin.datasets.panel_method import potential_flow
from torch_geometric_erwin.datasets.quad_mesh import (
    quads_beside,
    triangles_between,
)

GAP = (0.4, 1.5)  # between neighbors, in m
TRIES = 1000


class BluffBodies(DrawnDataset):
    r"""Random bodies with the shape of cars in a uniform flow, and the
    pressure on their surface, made on the fly: what the ShapeNet-Car data of
    `"Learning Three-dimensional Flow for Interactive Aerodynamic Design"
    <https://doi.org/10.1145/3197517.3201325>`_ (Umetani and Bickel 2018)
    asks for, without its simulations.

    The shape of the whole decides over the pressure everywhere. The flow is
    potential flow: air without friction, which closes behind the bodies and
    leaves no wake and no drag. Bodies are those of
    :class:`~torch_geometric_erwin.datasets.BodyShape`; sources on their
    surface are solved for by
    :func:`~torch_geometric_erwin.datasets.potential_flow`. Of one body, on
    3,510 and on 9,750 panels, pressure coefficients differed by 0.016 (root
    mean square; their standard deviation is 0.32).

    Points are the centers of :math:`N` panels, where the equations hold. The
    air comes along :math:`+x`, :math:`z` is up, and lengths are in m. Each
    cloud has

    * :obj:`pos` and outward unit vectors :obj:`normal` of shape
      :math:`(N, 3)`,
    * pressure coefficients :obj:`y` of shape :math:`(N, 1)`,
      :math:`1 - \lVert \mathbf{v} \rVert^2 / U^2`,
    * :obj:`velocity` along the surface, of shape :math:`(N, 3)`, in units of
      the speed :math:`U` of the flow far away,
    * panels' :obj:`area` of shape :math:`(N)`, in m²,
    * :obj:`body` of shape :math:`(N)`: whose point it is,
    * :obj:`edge_index` of shape :math:`(2, 4 N)` between panels that share a
      side, and :obj:`face` of shape :math:`(3, T)`: triangles between points,
      counterclockwise seen from outside. Neither joins two bodies.

    :math:`N` is the same for all clouds with as many bodies. The first clouds
    of a larger dataset are those of a smaller one.

    Args:
        root (str): Where to keep the clouds.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`:
            clouds that share nothing. (default: :obj:`"train"`)
        num_clouds (int, optional): Number of flows. (default: :obj:`64`)
        num_points (int, optional): About how many points each has; at least
            200 for each body. (default: :obj:`3600`)
        num_bodies (int or tuple, optional): Number of bodies near each other,
            or the least and the most. (default: :obj:`1`)
        ground (bool, optional): Whether they stand on a ground, the plane
            :math:`z = 0`, which moves along with the flow.
            (default: :obj:`True`)
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
        ValueError: If an argument makes no bodies, or :obj:`pre_transform`
            or :obj:`pre_filter` cannot be told from others of its kind.
    """
    def __init__(
        self,
        root: str,
        split: str = 'train',
        num_clouds: int = 64,
        num_points: int = 3600,
        num_bodies: int | tuple[int, int] = 1,
        ground: bool = True,
        seed: int = 0,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        expect(num_clouds > 0, 'num_clouds', 'positive', num_clouds)
        self.num_bodies = as_range('num_bodies', num_bodies)
        most = self.num_bodies[1]
        expect(num_points >= 200 * most, 'num_points',
               f'at least 200 for each of {most} bodies', num_points)
        self.num_points = num_points
        self.ground = bool(ground)
        super().__init__(root, split, num_clouds, seed, transform,
                         pre_transform, pre_filter, force_reload)

    def facts(self) -> tuple:
        return self.num_points, self.num_bodies, self.ground

    def make(self, i: int) -> Data:
        r"""Makes the :obj:`i`-th cloud of the split."""
        vertices, quads, body = self._draw_bodies(self.generator(i))
        flow = potential_flow(vertices, quads, body, torch.tensor(
            [1., 0., 0.], dtype=torch.float64), self.ground)
        return Data(
            pos=flow.panels.center.float(),
            normal=flow.panels.normal.float(),
            y=flow.pressure.float()[:, None],
            velocity=flow.velocity.float(),
            area=flow.panels.area.float(),
            body=body,
            edge_index=quads_beside(quads),
            face=triangles_between(quads),
        )

    def _draw_bodies(self, rng: torch.Generator) -> tuple[
            Tensor, Tensor, Tensor]:
        r"""Returns vertices, quads and whose quads they are."""
        low, high = self.num_bodies
        count = int(torch.randint(low, high + 1, (1,), generator=rng))
        meshes = [_draw_mesh(self.num_points // count, rng)
                  for _ in range(count)]
        places = _place([points for points, _ in meshes], rng)
        start = [k * len(meshes[0][0]) for k in range(count)]
        return (torch.cat(places),
                torch.cat([quads + s for (_, quads), s in zip(
                    meshes, start, strict=True)]),
                torch.arange(count).repeat_interleave(len(meshes[0][1])))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'split={self.split!r}, num_points={self.num_points}, '
                f'num_bodies={self.num_bodies})')


def _draw_mesh(num_panels: int,
               rng: torch.Generator) -> tuple[Tensor, Tensor]:
    r"""Draws bodies until panels resolve one."""
    for _ in range(TRIES):
        vertices, quads = BodyShape.draw(rng).mesh(num_panels)
        if is_sound(vertices, quads):
            return vertices, quads
    raise RuntimeError(f'No body of {TRIES} is resolved by {num_panels} '
                       f'panels, {panel_counts(num_panels)} along its sides')


def _place(bodies: list[Tensor], rng: torch.Generator) -> list[Tensor]:
    r"""Moves each body near those before it, but not too near, and all of
    them so that the middle is at :math:`x = y = 0`.
    """
    placed = bodies[:1]
    for body in bodies[1:]:
        while True:
            other = placed[int(torch.randint(len(placed), (1,),
                                             generator=rng))]
            shift = 2 * torch.rand(2, generator=rng, dtype=torch.float64) - 1
            reach = (_extent(other) + _extent(body)) / 2 + GAP[1]
            moved = body + torch.cat([_middle(other) - _middle(body) +
                                      shift * reach, shift.new_zeros(1)])
            if min(_gap(moved, third) for third in placed) >= GAP[0]:
                placed.append(moved)
                break
    middle = _middle(torch.cat(placed))
    return [body - torch.cat([middle, middle.new_zeros(1)])
            for body in placed]


def _extent(body: Tensor) -> Tensor:
    return body[:, :2].amax(0) - body[:, :2].amin(0)


def _middle(body: Tensor) -> Tensor:
    return (body[:, :2].amax(0) + body[:, :2].amin(0)) / 2


def _gap(a: Tensor, b: Tensor) -> float:
    r"""Returns how far the boxes around two bodies are apart."""
    apart = torch.maximum(a.amin(0) - b.amax(0), b.amin(0) - a.amax(0))
    return apart[:2].clamp(min=0).norm().item()
