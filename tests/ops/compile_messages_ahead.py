r"""Compiles the Triton kernels of message passing for GPUs that need not be
there: `python -m tests.ops.compile_messages_ahead 80 90`.
"""

import sys

import torch

from tests.ops.compile_ahead import compile_for
from torch_geometric_erwin.ops.message_passing import (
    EdgeLists,
    triton,
    triton_kernels,
)

CASES = [(64, 3, torch.float32, 'mean', True),
         (128, 8, torch.bfloat16, 'sum', True),
         (20, 1, torch.float16, 'mean', False),
         (512, 20, torch.float32, 'mean', True),
         (256, 3, torch.float16, 'mean', True)]


def launch(channels: int, dims: int, dtype: torch.dtype, aggr: str,
           has_shift: bool) -> None:
    edge_index = torch.zeros(2, 4, dtype=torch.long)
    lists = EdgeLists.of(edge_index, 2, 2)
    if has_shift:
        lists = lists._replace(order=torch.arange(2))
    variables = [torch.zeros(shape, dtype=dtype) for shape in (
        (2, channels), (2, channels), (4, dims), (channels, dims),
        (channels, ), (channels, ))]
    some = variables if has_shift else [*variables[:5], None]
    rest = edge_index, lists, aggr, 1e-5
    triton.forward(some, *rest)
    triton.backward(variables[0], some, *rest, [x is not None for x in some])


if __name__ == '__main__':
    compile_for(sys.argv[1:], triton_kernels,
                ('forward', 'backward', 'backward_sources'), launch, CASES)
