r"""Closed surfaces of quads: a box to bend, its neighbors, its slopes."""

import torch
from torch import Tensor
from torch_geometric.utils import coalesce, remove_self_loops, scatter


def box_mesh(counts: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    r"""Cuts the surface of the box :math:`[-1, 1]^3` into equal rectangles.

    Args:
        counts: Their numbers along the three axes, :math:`n_x, n_y, n_z`.

    Returns:
        Vertices of shape :math:`(V, 3)`, float64, and :math:`P = 2 (n_x n_y +
        n_y n_z + n_z n_x)` quads of shape :math:`(P, 4)`, counterclockwise
        seen from outside; :math:`V = P + 2`.
    """
    sides = [_side(counts, axis, end) for axis in range(3) for end in (0, 1)]
    corners = torch.cat(sides)
    points, quads = corners.view(-1, 3).unique(dim=0, return_inverse=True)
    return 2. * points.double() / torch.tensor(counts) - 1., quads.view(-1, 4)


def _side(counts: tuple[int, int, int], axis: int, end: int) -> Tensor:
    r"""Returns the corners of a side's rectangles, of shape
    :math:`(P, 4, 3)`, in steps of the grid.
    """
    n, m = counts[(axis + 1) % 3], counts[(axis + 2) % 3]
    corner = torch.cartesian_prod(torch.arange(n), torch.arange(m))
    around = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]])
    flat = corner[:, None] + (around if end else around.flip(0))
    height = torch.full_like(flat[..., :1], end * counts[axis])
    return torch.cat([height, flat], dim=-1).roll(axis, dims=-1)


def quads_around(quads: Tensor) -> Tensor:
    r"""Lists which quads share a vertex.

    Args:
        quads: Vertices of each quad, of shape :math:`(P, 4)`.

    Returns:
        Pairs of quads of shape :math:`(2, E)`, both directions, sorted.
    """
    vertex, order = quads.flatten().sort(stable=True)
    quad = order // 4
    near = [torch.stack([quad[:-k], quad[k:]])[:, vertex[:-k] == vertex[k:]]
            for k in range(1, int(vertex.bincount().max()))]
    pairs = torch.cat([*near, *(pair.flip(0) for pair in near)], dim=1)
    return coalesce(remove_self_loops(pairs)[0])


def quads_beside(quads: Tensor) -> Tensor:
    r"""Lists which quads share a side: the mesh as a graph of its quads.

    Args:
        quads: Vertices of each quad, of shape :math:`(P, 4)`.

    Returns:
        Pairs of quads of shape :math:`(2, E)`, both directions, sorted.
    """
    ends = torch.stack([quads, quads.roll(-1, dims=1)], dim=-1).view(-1, 2)
    key = ends.amin(1) * (int(quads.max()) + 1) + ends.amax(1)
    pairs = (key.sort(stable=True)[1] // 4).view(-1, 2).t()
    return coalesce(torch.cat([pairs, pairs.flip(0)], dim=1))


def triangles_between(quads: Tensor) -> Tensor:
    r"""Joins the centers of quads to a closed surface of triangles. The
    quads around a vertex make a polygon, which is cut into a fan.

    Args:
        quads: Vertices of each quad, of shape :math:`(P, 4)`,
            counterclockwise seen from outside.

    Returns:
        Quads at the corners of each triangle, of shape :math:`(3, T)`,
        counterclockwise seen from outside.
    """
    size = int(quads.max()) + 1
    quad = torch.arange(quads.size(0)).repeat_interleave(4)
    after = quads.roll(-1, dims=1).flatten()
    before = quads.roll(1, dims=1).flatten()
    # The next quad around a vertex begins where this one came in.
    key, order = (quads.flatten() * size + after).sort()
    place = torch.searchsorted(key, quads.flatten() * size + before)
    follower = order[place]  # of a quad at a vertex, another such
    first = quad.new_full((size,), quads.numel()).scatter_reduce(
        0, quads.flatten(), torch.arange(quads.numel()), 'amin')
    base, fans = first, []
    second = follower[base]
    for _ in range(int(quads.flatten().bincount().max()) - 2):
        third = follower[second]
        holds = third != base
        fans.append(torch.stack([quad[base], quad[second], quad[third]])[
            :, holds])
        base, second = base[holds], third[holds]
    return torch.cat(fans, dim=1)


def surface_gradient(value: Tensor, pos: Tensor, normal: Tensor,
                     pairs: Tensor) -> Tensor:
    r"""Fits a parabola through each point and, by least squares, to its
    neighbors, in coordinates of the tangent plane, and returns its slope.
    The error is of second order in the distance of neighbors.

    Args:
        value: A scalar at each point, of shape :math:`(N)`.
        pos: Positions, of shape :math:`(N, 3)`.
        normal: Unit normals, of shape :math:`(N, 3)`.
        pairs: Neighbors of shape :math:`(2, E)`; five or more for a point.

    Returns:
        Tangential gradients, of shape :math:`(N, 3)`.
    """
    (i, j), n = pairs, value.numel()
    frame = tangents(normal)
    step = pos[j] - pos[i]
    scale = scatter(step.norm(dim=1), i, dim_size=n, reduce='mean')
    a, b = torch.einsum('ekd,ed->ke', frame[i], step / scale[i, None])
    terms = torch.stack([a, b, a * a / 2, a * b, b * b / 2], dim=1)
    weighted = terms / (a * a + b * b)[:, None]
    normals = terms.new_zeros(n, 5, 5).index_add_(
        0, i, weighted[:, :, None] * terms[:, None])
    right = terms.new_zeros(n, 5).index_add_(
        0, i, weighted * (value[j] - value[i])[:, None])
    slope = torch.linalg.solve(normals, right)[:, :2] / scale[:, None]
    return torch.einsum('nk,nkd->nd', slope, frame)


def tangents(normal: Tensor) -> Tensor:
    r"""Returns two unit vectors across each unit normal, of shape
    :math:`(N, 2, 3)`.
    """
    axis = torch.eye(3, dtype=normal.dtype)[normal.abs().argmin(dim=1)]
    first = torch.nn.functional.normalize(
        torch.linalg.cross(normal, axis), dim=1)
    return torch.stack([first, torch.linalg.cross(normal, first)], dim=1)
