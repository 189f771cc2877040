r"""Eigenvectors of many small symmetric matrices, by Jacobi's method, whose
steps are the same on every machine.
"""

import torch
from torch import Tensor

from torch_geometric_erwin.ops.native import has_triton, works

SWEEPS = 12
FLAT = 1e-10  # of a trace of one: no difference
DONE = 1e-13  # of it: diagonal, but for rounding
BLOCK = 64  # matrices of a program


def eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns eigenvalues, shape :math:`(M, D)`, and eigenvectors in columns,
    of matrices of trace one in float64, shape :math:`(M, D, D)`.
    """
    matrix = torch.where(matrix.abs() > FLAT, matrix, 0.)
    case = matrix.device, matrix.size(1)
    if matrix.is_cuda and has_triton() and works('eigenvectors',
                                                 lambda: trial(*case), *case):
        return by_triton(matrix)
    return by_torch(matrix)


def trial(device: torch.device, dim: int) -> bool:
    r"""Whether the kernel does what PyTorch's operations do."""
    x = torch.arange(100. * dim * dim, device=device, dtype=torch.double)
    x = x.mul(0.618034).frac().view(100, dim, dim)
    x = x + x.transpose(1, 2)
    return all(bool(((a - b).abs() < 1e-10).all())
               for a, b in zip(by_triton(x), by_torch(x), strict=True))


def by_triton(matrix: Tensor) -> tuple[Tensor, Tensor]:
    r"""By one launch."""
    from torch_geometric_erwin.ops.build_tree import triton_kernels
    num, dim, _ = matrix.shape
    a = matrix.flatten(1).t().clone(memory_format=torch.contiguous_format)
    v = torch.eye(dim, dtype=a.dtype, device=a.device).view(-1, 1)
    v = v.expand(-1, num).contiguous()
    if num > 0:
        # Fused multiplications and additions would round otherwise.
        triton_kernels.jacobi[-(-num // BLOCK), ](
            a, v, num, SWEEPS, DONE=DONE, DIM=dim, BLOCK=BLOCK,
            num_warps=BLOCK // 32, enable_fp_fusion=False)
    return a[::dim + 1].t(), v.t().unflatten(1, (dim, dim))


def by_torch(matrix: Tensor) -> tuple[Tensor, Tensor]:
    r"""By many operations."""
    dim = matrix.size(1)
    a = [[matrix[:, i, j] for j in range(dim)] for i in range(dim)]
    one, zero = torch.ones_like(a[0][0]), torch.zeros_like(a[0][0])
    v = [[one if i == j else zero for j in range(dim)] for i in range(dim)]
    for _ in range(SWEEPS):
        for p in range(dim):
            for q in range(p + 1, dim):
                _rotate(a, v, p, q)
    return (torch.stack([a[i][i] for i in range(dim)], dim=1),
            torch.stack([torch.stack(row, dim=1) for row in v], dim=1))


def _rotate(a: list[list[Tensor]], v: list[list[Tensor]], p: int,
            q: int) -> None:
    apart = a[p][q].abs() > DONE
    half = (a[q][q] - a[p][p]) / torch.where(apart, 2 * a[p][q], 1.)
    t = 1 / (half.abs() + (half * half + 1).sqrt())
    t = torch.where(half < 0, -t, t)
    t = torch.where(apart, t, 0.)
    c = 1 / (t * t + 1).sqrt()
    s = t * c
    off = t * a[p][q]
    a[p][p], a[q][q] = a[p][p] - off, a[q][q] + off
    a[p][q] = a[q][p] = torch.where(apart, 0., a[p][q])
    for r in range(len(a)):
        if r not in (p, q):
            x, y = a[r][p], a[r][q]
            a[r][p] = a[p][r] = c * x - s * y
            a[r][q] = a[q][r] = s * x + c * y
        x, y = v[r][p], v[r][q]
        v[r][p], v[r][q] = c * x - s * y, s * x + c * y
