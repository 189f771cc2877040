r"""Brings the air around a car and its surface together."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from torch_geometric_erwin.datasets.meshes import (
    HEXAHEDRON,
    QUAD,
    edges_of_cells,
    split_quads,
)
from torch_geometric_erwin.tree import knn


def join(surface: tuple[Tensor, Tensor, Tensor], points: Tensor,
         velocity: Tensor, cells: Tensor) -> dict[str, Tensor]:
    r"""Returns the points of the air that are not on the surface, followed by
    those of the surface, with what is known of either.
    """
    skin, pressure, quads = surface
    slot, twin, count = find_nodes(points, skin)
    pos = torch.cat([points.new_empty(count, 3), skin])
    speed = torch.zeros_like(pos)
    # At points that meshes share, positions are the same.
    pos[slot], speed[slot] = points, velocity
    speed[count:] = speed[twin]
    pressure = torch.cat([pressure.new_zeros(count, 1), pressure])
    quads, cells = quads + count, slot[cells]
    on_surface = torch.arange(len(pos)) >= count
    distance, normal = find_normals(pos, count, quads)
    return dict(
        pos=pos, y=torch.cat([speed, pressure], dim=1), surface=on_surface,
        distance=distance, normal=normal, face=split_quads(quads),
        edge_index=join_edges(quads, cells, len(pos)),
    )


def find_nodes(points: Tensor, skin: Tensor) -> tuple[Tensor, Tensor, int]:
    r"""Returns the node of each point, the first node of the surface that is
    where each of its points is, and the number of points that are not on the
    surface. Points on it coincide with its own to the last bit.
    """
    group = torch.cat([skin, points]).unique(dim=0, return_inverse=True)[1]
    size = len(skin)
    first = torch.full_like(group, size).scatter_reduce_(
        0, group[:size], torch.arange(size), 'amin')[group]
    apart = first[size:] == size
    count = int(apart.sum())
    node = first + count
    node[size:][apart] = torch.arange(count)
    return node[size:], node[:size], count


def find_normals(pos: Tensor, count: int,
                 quads: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the distances to the nearest point of the surface, and the
    directions away from it; at the surface, the normals of its quads.
    """
    air, skin = pos[:count], pos[count:]
    offset = torch.zeros_like(pos)
    if count:
        offset[:count] = air - skin[knn(skin, air, 1)[1]]
    distance = offset.norm(dim=1, keepdim=True)
    normal = normalize(offset, dim=1)
    normal[count:] = normals_of_quads(pos, quads)[count:]
    return distance, normal


def normals_of_quads(pos: Tensor, quads: Tensor) -> Tensor:
    r"""Returns the mean normals of the quads around each point, weighted by
    area, all turned over if they enclose a negative volume.
    """
    a, b, c, d = pos.double()[quads].unbind(1)
    area = torch.linalg.cross(c - a, d - b) / 2
    center = (a + b + c + d) / 4
    volume = ((center - center.mean(dim=0)) * area).sum()
    area = torch.where(volume < 0, -area, area)
    total = torch.zeros_like(pos, dtype=torch.double)
    total.index_add_(0, quads.flatten(), area.repeat_interleave(4, dim=0))
    return normalize(total, dim=1).to(pos.dtype)


def join_edges(quads: Tensor, cells: Tensor, num_nodes: int) -> Tensor:
    edges = [edges_of_cells(quads, QUAD, num_nodes)[0],
             edges_of_cells(cells, HEXAHEDRON, num_nodes)[0]]
    return torch.cat(edges, dim=1).unique(dim=1)
