r"""Edges and triangles of meshes."""

import torch
from torch import Tensor

# The sides of cells, as VTK numbers their corners.
TRIANGLE = ((0, 1), (1, 2), (2, 0))
QUAD = ((0, 1), (1, 2), (2, 3), (3, 0))
HEXAHEDRON = (*QUAD, (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6),
              (3, 7))


def edges_of_cells(cells: Tensor, sides: tuple, num_nodes: int,
                   step: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Returns the sides of cells :math:`(M, K)`, in both directions and each
    once, and the step that each is of, where cells belong to steps. Corners
    that coincide have no side between them.
    """
    pairs = cells[:, torch.tensor(sides)].flatten(0, 1)
    pairs = torch.cat([pairs, pairs.flip(1)])
    step = cells.new_zeros(len(cells)) if step is None else step
    step = step.repeat_interleave(len(sides)).repeat(2)
    apart = pairs[:, 0] != pairs[:, 1]
    key = (step * num_nodes + pairs[:, 0]) * num_nodes + pairs[:, 1]
    key = key[apart].unique()
    edge_index = torch.stack([key // num_nodes % num_nodes, key % num_nodes])
    return edge_index, key // num_nodes**2


def split_quads(quads: Tensor) -> Tensor:
    r"""Returns the two triangles of each quad, :math:`(3, 2M)`."""
    return torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).t()


def grid_quads(height: int, width: int) -> Tensor:
    r"""Returns the cells of a grid whose points are numbered row by row."""
    index = torch.arange(height * width).view(height, width)
    return torch.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:],
                        index[:-1, 1:]], dim=-1).flatten(0, 1)
