r"""Compiles the Triton kernels for GPUs that need not be there, and prints how
much shared memory each takes: `python -m tests.ops.compile_ahead 80 90`.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton as compiler
from triton.backends.compiler import GPUTarget

from torch_geometric_erwin.ops.ball_attention import triton, triton_kernels

CASES: list[dict[str, Any]] = [
    dict(ball_size=1, width=3, box=1),
    dict(ball_size=128, width=32, box=13),
    dict(ball_size=256, width=32, bias='squared', moving=False),
    dict(ball_size=64, width=64, pos_dtype=torch.float64, box=6, dim=2),
    dict(ball_size=4096, width=128, filled=True, bias=''),
    dict(ball_size=128, width=128, dtype=torch.float16),
    dict(ball_size=64, width=32, dtype=torch.float32, filled=True),
    dict(ball_size=256, width=200, filled=True),
    dict(ball_size=256, width=256, dtype=torch.float32, filled=True),
]


class Driver:
    r"""What Triton asks before it compiles."""
    def __init__(self, capability: int) -> None:
        self.target = GPUTarget('cuda', capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Kernel:
    r"""Compiles instead of launching."""
    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*args: Any, **kwargs: Any) -> None:
            code = self.kernel.warmup(*args, grid=grid, **kwargs)
            assert code.asm['cubin']
            print(self.kernel.__name__, code.metadata.shared, flush=True)

        return run


def compile_for(capabilities: list[str], kernels: Any, names: Sequence[str],
                launch: Callable[..., None], cases: Sequence[Any]) -> None:
    r"""Compiles kernels of a module for what launches them in some cases."""
    for name in names:
        setattr(kernels, name, Kernel(getattr(kernels, name)))
    for capability in capabilities:
        compiler.runtime.driver.set_active(Driver(int(capability)))
        for case in cases:
            launch(*case)


def launch(ball_size: int, width: int, dtype: torch.dtype = torch.bfloat16,
           bias: str = 'distance', dim: int = 3, *, filled: bool = False,
           box: int = 0, moving: bool = True,
           pos_dtype: torch.dtype = torch.float32) -> None:
    slots = 2 * ball_size
    rows = list(torch.zeros(slots, 3, 2, width, dtype=dtype).unbind(1))
    args = (
        torch.zeros(slots, dim, dtype=pos_dtype),
        torch.zeros(2) if bias else None,
        torch.arange(slots),
        None if filled else torch.ones(slots, dtype=torch.bool),
        torch.ones(2, box, dim, dtype=pos_dtype)[:, 0 if box == 1 else slice(
            None)] if box else None)
    out, lse = triton.forward(rows, *args, ball_size, bias)
    needs = [True] * 3 + [bool(bias) and moving, bool(bias)]
    triton.backward([*rows, out, out], *args, lse, ball_size, bias, needs)


if __name__ == '__main__':
    for name in ('gather', 'forward', 'backward'):
        kernel = getattr(triton_kernels, name)
        setattr(triton_kernels, name, Kernel(kernel))
    for capability in sys.argv[1:]:
        compiler.runtime.driver.set_active(Driver(int(capability)))
        for case in CASES:
            print(capability, case)
            launch(**case)
