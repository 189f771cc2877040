r"""Compiles the Triton kernels of trees for GPUs that need not be there, and
prints how much shared memory each takes:
`python -m tests.ops.compile_trees_ahead 80 90`.
"""

import sys

import numpy as np
import torch
import triton as compiler

from tests.ops.compile_ahead import Driver, Kernel
from torch_geometric_erwin.ops.build_tree import (
    eigenvectors,
    triton,
    triton_kernels,
)
from torch_geometric_erwin.ops.build_tree.counts import count_levels
from torch_geometric_erwin.ops.build_tree.layout import Layout

KERNELS = ('lay_out', 'tree_nodes', 'ball_nodes', 'mark', 'add_up', 'move',
           'finish', 'jacobi')


class Compiled(triton.TritonLayout):
    r"""Its kernels write nothing."""
    def starts(self) -> list[torch.Tensor]:
        super().starts()
        return Layout(self.levels, self.device).starts()


def launch(dtype: torch.dtype) -> None:
    levels = count_levels(np.array([2000]), [32, 32], [2], False)
    pos = torch.rand(2000, 3, dtype=dtype)
    lists = torch.arange(2000).repeat(3, 1)
    layout = Compiled(levels, pos.device)
    layout.order(lists, pos)
    layout.gather_balls(0, lists, pos)


if __name__ == '__main__':
    for name in KERNELS:
        kernel = getattr(triton_kernels, name)
        setattr(triton_kernels, name, Kernel(kernel))
    for capability in sys.argv[1:]:
        compiler.runtime.driver.set_active(Driver(int(capability)))
        for dtype in (torch.float32, torch.float64):
            print(capability, dtype)
            launch(dtype)
        for dim in (2, 3, 5):
            eigenvectors.by_triton(torch.rand(9, dim, dim).double())
