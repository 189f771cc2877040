r"""Compiles the Triton kernels of messages on scalars and vectors for GPUs
that need not be there:
`python -m tests.ops.compile_equivariant_messages_ahead 80 90`.
"""

import sys

import torch

from tests.ops.compile_ahead import compile_for
from torch_geometric_erwin.ops.equivariant_messages import (
    triton,
    triton_kernels,
)
from torch_geometric_erwin.ops.message_passing import EdgeLists

CASES = [(64, 3, 1, torch.float32, 'mean', True),
         (64, 3, 8, torch.bfloat16, 'sum', True),
         (20, 2, 9, torch.float16, 'mean', False),
         (512, 5, 20, torch.float32, 'mean', True),
         (256, 1, 3, torch.bfloat16, 'mean', True)]


def launch(channels: int, axes: int, dims: int, dtype: torch.dtype, aggr: str,
           has_shift: bool) -> None:
    edge_index = torch.zeros(2, 4, dtype=torch.long)
    lists = EdgeLists.of(edge_index, 2, 2)
    if has_shift:
        lists = lists._replace(order=torch.arange(2))
    variables = [torch.zeros(shape, dtype=dtype) for shape in (
        (2, channels), (2, channels), (2, axes, channels), (4, dims),
        (4, axes), (channels, dims), (channels, ), (channels, ))]
    some = variables if has_shift else [*variables[:7], None]
    rest = edge_index, lists, aggr, 1e-5
    out = triton.forward(some, *rest)
    triton.backward(out, some, *rest, [x is not None for x in some])


if __name__ == '__main__':
    compile_for(sys.argv[1:], triton_kernels,
                ('forward', 'backward', 'backward_sources'), launch, CASES)
