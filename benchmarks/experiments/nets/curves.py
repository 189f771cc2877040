r"""Orders of points along space-filling curves."""

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import scatter

BITS = 15  # of a coordinate: up to four of them fit a number


def curve_orders(data: Batch) -> list[Tensor]:
    r"""Returns the points of each cloud, cloud after cloud, along four
    curves: Morton's, Hilbert's, and these two with the axes in reverse.
    """
    cells = grid_cells(data)
    codes = [curve(cells.flip(1) if reverse else cells, BITS)
             for reverse in (False, True) for curve in (morton, hilbert)]
    return [by_cloud(code, data.batch) for code in codes]


def by_cloud(code: Tensor, batch: Tensor) -> Tensor:
    order = code.argsort(stable=True)
    return order[batch[order].argsort(stable=True)]


def grid_cells(data: Batch) -> Tensor:
    r"""Returns in which cells of a grid points lie: one in the box, or else
    around the cloud, that has cubes for cells.
    """
    pos = data.pos.detach()
    if 'box' in data:
        size, pos = data.box, torch.remainder(pos, data.box[data.batch])
    else:
        low, high = (scatter(pos, data.batch, dim_size=data.num_graphs,
                             reduce=reduce) for reduce in ('min', 'max'))
        size, pos = high - low, pos - low[data.batch]
    size = size.amax(dim=1, keepdim=True).clamp(min=1e-30)
    cells = (pos / size[data.batch] * 2**BITS).long()
    return cells.clamp(0, 2**BITS - 1)


def morton(cells: Tensor, bits: int) -> Tensor:
    r"""Returns the bits of all coordinates in turn, shape :math:`(N)`."""
    code = torch.zeros_like(cells[:, 0])
    for bit in reversed(range(bits)):
        for x in cells.unbind(1):
            code = code << 1 | x >> bit & 1
    return code


def hilbert(cells: Tensor, bits: int) -> Tensor:
    r"""Returns how far along Hilbert's curve cells lie, shape :math:`(N)`,
    by the algorithm of the `"Programming the Hilbert curve"
    <https://doi.org/10.1063/1.1751381>`_ paper.
    """
    x = list(cells.unbind(1))
    for bit in reversed(range(1, bits)):
        low = (1 << bit) - 1
        for i in range(len(x)):
            flip = x[i] >> bit & 1 == 1
            swap = torch.where(flip, 0, (x[0] ^ x[i]) & low)
            x[0] = torch.where(flip, x[0] ^ low, x[0] ^ swap)
            x[i] = x[i] ^ swap if i > 0 else x[0]
    return gray(x, bits)


def gray(x: list[Tensor], bits: int) -> Tensor:
    for i in range(1, len(x)):
        x[i] = x[i] ^ x[i - 1]
    flip = torch.zeros_like(x[0])
    for bit in reversed(range(1, bits)):
        flip = torch.where(x[-1] >> bit & 1 == 1, flip ^ (1 << bit) - 1, flip)
    return morton(torch.stack([x ^ flip for x in x], dim=1), bits)
