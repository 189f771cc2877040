r"""Grounds, a fan that flies above them, and a mesh of the air between."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ('step', 'triangle', 'spline')
RADIUS, THICKNESS = 4.5, 3  # of the fan, in cells
PERIOD = 4000  # of its flight, in steps
# Types of nodes, as in EAGLE.
NORMAL, INPUT, OUTPUT, WALL = 0, 4, 5, 6


@dataclass
class Scene:
    r"""Where the ground is, and where the fan flies.

    Attributes:
        solid: Which cells are ground, :math:`(H, W)`; rows go upwards.
        path: Where the fan is at each step of the solver, in cells,
            :math:`(T, 2)`.
    """
    solid: Tensor
    path: Tensor

    def fan(self, step: int) -> Tensor:
        r"""Returns which cells the fan drives, :math:`(H, W)`."""
        y, x = torch.meshgrid(*[torch.arange(n) for n in self.solid.shape],
                              indexing='ij')
        dx, dy = x - self.path[step, 0], y - self.path[step, 1]
        return (dx.abs() <= RADIUS) & (dy.abs() <= THICKNESS / 2)


def draw_scene(shape: tuple[int, int], num_steps: int,
               rng: torch.Generator) -> Scene:
    r"""Draws a ground and a flight over it."""
    height, width = shape
    kind = KINDS[int(torch.randint(len(KINDS), (1,), generator=rng))]
    ground = draw_ground(kind, width, height, rng)
    y = torch.arange(height)[:, None]
    return Scene(y < ground, draw_path(shape, num_steps, rng))


def draw_ground(kind: str, width: int, height: int,
                rng: torch.Generator) -> Tensor:
    r"""Returns how high the ground is at each place, :math:`(W)`, in cells:
    at least one, and at most two fifths of the whole.
    """
    x = torch.linspace(0, 1, width)
    ends = torch.rand(6, generator=rng).sort()[0]
    level = torch.rand(6, generator=rng) * 0.4 * height
    if kind == 'step':
        at = torch.searchsorted(ends, x).clamp(max=5)
        return level[at].clamp(min=1)
    if kind == 'triangle':
        top = 1 - ((x - 0.2 - 0.6 * ends[2]) / (0.05 + 0.2 * ends[0])).abs()
        return (top * level.max()).clamp(min=1)
    order = torch.arange(1, 7)[:, None]
    waves = (level[:, None] / order * torch.cos(
        math.pi * (order * x + 2 * ends[:, None]))).sum(0)
    waves = waves - waves.min()
    return (waves / waves.max() * level.max()).clamp(min=1)


def draw_path(shape: tuple[int, int], num_steps: int,
              rng: torch.Generator) -> Tensor:
    r"""Returns a smooth flight from side to side, at three fifths to four
    fifths of the height, :math:`(T, 2)`.
    """
    height, width = shape
    t = torch.arange(num_steps)[:, None] / PERIOD
    phase = torch.rand(2, 3, generator=rng)
    size = torch.rand(2, 3, generator=rng) + 0.2
    wave = (size * torch.sin(2 * math.pi * (
        t[..., None] * torch.tensor([0.5, 1., 1.5]) + phase))).sum(2)
    wave = wave / size.sum(1)
    middle = torch.tensor([0.5 * width, 0.7 * height])
    return middle + wave * torch.tensor([0.35 * width, 0.1 * height])


def make_mesh(solid: Tensor, stride: int,
              rng: torch.Generator) -> tuple[Tensor, Tensor]:
    r"""Puts nodes on every other cell of the air, or every few, inner ones a
    little out of place, and triangles between them.

    Returns:
        Positions in cells, :math:`(N, 2)`, and triangles :math:`(M, 3)`.
    """
    rows = torch.arange(0, solid.size(0), stride)
    columns = torch.arange(0, solid.size(1), stride)
    grid = torch.cartesian_prod(rows, columns)
    air = ~solid[grid[:, 0], grid[:, 1]]
    shift = (torch.rand(len(grid), 2, generator=rng) - 0.5) * 0.5 * stride
    inner = inside(solid, grid, stride)
    pos = grid.flip(1) + torch.where(inner[:, None], shift, 0.)
    corner = torch.arange(len(grid)).view(len(rows), len(columns))
    a, b, c, d = (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:],
                  corner[1:, :-1])
    faces = torch.cat([torch.stack([a, b, c], dim=-1).view(-1, 3),
                       torch.stack([a, c, d], dim=-1).view(-1, 3)])
    faces = faces[air[faces].all(1)]
    used = torch.zeros(len(grid), dtype=torch.bool)
    used[faces.flatten()] = True
    number = used.cumsum(0) - 1
    return pos[used], number[faces]


def inside(solid: Tensor, grid: Tensor, stride: int) -> Tensor:
    r"""Which nodes have air around them, as far as the next ones."""
    height, width = solid.shape
    ground = torch.nn.functional.max_pool2d(
        solid[None].float(), 2 * stride + 1, 1, stride)[0] > 0
    y, x = grid.t()
    edge = (x < stride) | (y < stride) | (x >= width - stride) | (
        y >= height - stride)
    return ~ground[y, x] & ~edge


def node_types(scene: Scene, pos: Tensor, step: int, stride: int) -> Tensor:
    r"""Returns the types of nodes, :math:`(N)`."""
    height, width = scene.solid.shape
    cell = pos.round().long()
    cell = torch.stack([cell[:, 1].clamp(0, height - 1),
                        cell[:, 0].clamp(0, width - 1)], dim=1)
    types = torch.full((len(pos),), NORMAL)
    y, x = cell.t()
    out = (x < stride) | (x >= width - stride) | (y >= height - stride)
    types[out] = OUTPUT
    ground = torch.nn.functional.max_pool2d(
        scene.solid[None].float(), 2 * stride + 1, 1, stride)[0] > 0
    types[ground[y, x]] = WALL
    types[scene.fan(step)[y, x]] = INPUT
    return types
