r"""The ball tree in pure torch, on whatever device the positions are.

Every axis keeps a list of all points, sorted once. A node of the tree is a
run of positions that is the same in all lists, so its extent on an axis is
the difference between the run's ends, its median is the point in the middle,
and a split moves points within the runs without comparing a coordinate
again. All nodes of a depth are split at once. See also `csrc/tree/tree.cpp`.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.centers import group_centers
from torch_geometric_erwin.ops.build_tree.counts import LevelCounts
from torch_geometric_erwin.ops.build_tree.layout import (
    Layout,
    stable_argsort,
    where_true,
)
from torch_geometric_erwin.ops.build_tree.orientation import (
    Orientation,
    in_range,
    turn,
)
from torch_geometric_erwin.ops.build_tree.principal import PrincipalAxes

# The slots of one level: `index` and `inverse` of every orientation, `mask`.
LevelTensors = tuple[list[Tensor], list[Tensor], Tensor]


def build_run(
    pos: Tensor,
    mass: Tensor | None,
    box: Tensor | None,
    levels: list[LevelCounts],
    ways: list[Orientation],
    make_layout: Callable[..., Layout] = Layout,
    principal: bool = False,
) -> list[LevelTensors] | None:
    r"""Builds the levels that share a tree.

    Args:
        pos: Positions, one cloud after the other, shape :math:`(N, D)`.
        mass: Mass of each point, shape :math:`(N)`.
        box: Periodic cells, shape :math:`(B, D)` or :math:`(B, R, D)`.
        levels: The counts of each level.
        ways: The orientations.
        make_layout: What splits nodes and lays points out.
        principal: Whether to split nodes along their principal axes.

    Returns:
        The tensors of every level; :obj:`None` where a turned coordinate is
        not finite or too large.
    """
    layout = make_layout(levels, pos.device)
    clouds = layout.counts.points.size(1)
    out: list[LevelTensors] = []
    for i, level in enumerate(levels):
        cloud = layout.cloud(i)
        cell = None if box is None else box[cloud]
        slot, mask, rank = layout.slots(i)
        orders = [torch.arange(level.num_points, device=pos.device)]
        if i == 0:
            near = pos if box is not None else to_origin(pos, cloud, clouds)
            if principal:
                orders = [layout.order_along(PrincipalAxes(pos, ways[0]))]
            else:
                turned = turn(near if ways[0].sine else pos, ways[0], cell)
                orders = [layout.order(_sort_axes(turned, cloud, clouds),
                                       turned)]
            pos = near
        inside = orders[0]
        for way in ways[1:]:
            if pos.size(1) == 1:
                order = _slide(layout, i, way)
            else:
                still = replace(way, sine=0.) if principal else way
                turned = turn(pos[inside], still,
                              None if cell is None else cell[inside])
                if not _all_in_range(turned):
                    return None
                if principal:
                    order = layout.order_of_balls_along(
                        i, PrincipalAxes(turned, way))
                else:
                    lists = _sort_axes(turned, cloud, clouds)
                    order = layout.order_of_balls(i, lists, turned)
            orders.append(inside[order])
        out.append((
            [order[rank] for order in orders],
            [_invert(order, slot) for order in orders],
            mask,
        ))
        if i + 1 < len(levels):
            assert level.stride is not None
            pos, mass = coarsen(pos, mass, out[-1][0][0], mask, level.stride,
                                levels[i + 1].num_points)
    return out


def to_origin(pos: Tensor, cloud: Tensor, num_clouds: int) -> Tensor:
    r"""Moves clouds to the origin, lest turning them cost precision."""
    low = pos.new_zeros(num_clouds, pos.size(1)).scatter_reduce(
        0, cloud.unsqueeze(1).expand_as(pos), pos.detach(), 'amin',
        include_self=False)
    return pos - low[cloud]


def coarsen(
    pos: Tensor,
    mass: Tensor | None,
    index: Tensor,
    mask: Tensor,
    stride: int,
    num_points: int,
) -> tuple[Tensor, Tensor]:
    r"""Returns the points of the next level and their masses."""
    center, mass = group_centers(pos, mass, index, mask, stride)
    if center.size(0) == num_points:
        return center, mass
    group = where_true(mass > 0, num_points)
    return center[group], mass[group]


def _all_in_range(pos: Tensor) -> bool:
    finite = in_range(pos)
    if pos.device.type == 'cpu':
        return bool(finite)
    torch._assert_async(finite, "Expected 'pos' to stay in range when turned")
    return True


def _invert(order: Tensor, slot: Tensor) -> Tensor:
    return torch.empty_like(order).scatter_(0, order, slot)


def _sort_axes(pos: Tensor, cloud: Tensor, num_clouds: int) -> Tensor:
    r"""Sorts each cloud's points on each axis, shape :math:`(D, N)`.

    Equal coordinates are ordered by the coordinates in turn, then as given.
    """
    pos = pos + 0.  # there is no negative zero, however a device sorts it
    columns = pos.t().contiguous()
    order = torch.arange(pos.size(0), device=pos.device)
    for column in columns.flip(0):
        order = order[torch.sort(column[order], stable=True).indices]
    lists = [order]  # the first axis came last, so it is sorted
    lists += [order[torch.sort(column[order], stable=True).indices]
              for column in columns[1:]]
    if num_clouds > 1:
        lists = [x[stable_argsort(cloud[x], num_clouds)] for x in lists]
    return torch.stack(lists)


def _slide(layout: Layout, i: int, way: Orientation) -> Tensor:
    r"""Moves a line's balls by part of a ball, around its ends."""
    counts, cloud = layout.counts, layout.cloud(i)
    begin, points, balls = counts.ptr[i], counts.points[i], counts.balls[i]
    first = torch.cat([layout.first(i), cloud.new_zeros(2)])
    ball = torch.where(balls > 1, first[counts.ball_ptr[i] + 1] - begin,
                       points)
    by = (ball.double() * way.slide).long()
    here = torch.arange(cloud.numel(), device=cloud.device) - begin[cloud]
    return begin[cloud] + (here + by[cloud]) % points[cloud]
