r"""Attention in balls against PyTorch's fused attention."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.speed.gpu.context import Context, show_bytes, show_time
from benchmarks.speed.report import Table, at_most
from benchmarks.speed.timing import Contender
from torch_geometric_erwin.ops.ball_attention import Balls, ball_attention

HEADS = 4
AIM = 1.3  # times the time without a bias
NAMES = {'shuffled': 'ours', 'in order': 'ours, in order',
         'plain': 'SDPA, no bias', 'bias': 'SDPA, bias', 'flex': 'Flex'}
TOLERANCES = {torch.float32: 3e-3, torch.bfloat16: 3e-2}
# Compiling takes a while; elsewhere FlexAttention is left out.
FLEX = {(256, 16, torch.bfloat16), (256, 32, torch.bfloat16),
        (256, 64, torch.bfloat16), (64, 32, torch.bfloat16),
        (128, 32, torch.bfloat16), (512, 32, torch.bfloat16),
        (256, 32, torch.float32)}


class Problem:
    r"""Random points in balls: by rows for ours, shuffled or in the order of
    the balls; contiguous, in that order and by heads for PyTorch's.
    """
    def __init__(self, context: Context, num_points: int, ball_size: int,
                 width: int, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.context = context
        to: dict[str, Any] = {'device': context.device}
        order = torch.randperm(num_points, **to)
        same = torch.arange(num_points, **to)
        self.balls = {'shuffled': Balls(ball_size, order, order.argsort()),
                      'in order': Balls(ball_size, same, same)}
        qkv = torch.randn(num_points, 3, HEADS, width, dtype=dtype, **to)
        self.rows = [x.requires_grad_() for x in qkv.unbind(1)]
        self.pos = torch.rand(num_points, 3, **to)
        self.slope = (-torch.rand(HEADS, **to)).requires_grad_()
        self.weight = torch.randn(num_points, HEADS, width, dtype=dtype, **to)
        self.heads = [self.split(x).requires_grad_() for x in self.rows]
        self.heads_weight = self.split(self.weight)
        self.near = self.balls['shuffled'].split(self.pos)
        self.score_mod = make_score_mod(self.near, self.slope.detach())
        self.flex: Callable[..., Tensor] | None = None

    def split(self, x: Tensor, name: str = 'shuffled') -> Tensor:
        x = self.balls[name].split(x.detach())
        return x.transpose(1, 2).contiguous()

    def ours(self, name: str) -> Tensor:
        return ball_attention(*self.rows, self.pos, self.slope,
                              self.balls[name])

    def plain(self) -> Tensor:
        is_flash = self.context.is_cuda and self.rows[0].element_size() == 2
        with (sdpa_kernel(SDPBackend.FLASH_ATTENTION) if is_flash
              else nullcontext()):
            return F.scaled_dot_product_attention(*self.heads)

    def bias(self) -> Tensor:
        far = torch.cdist(self.near, self.near,
                          compute_mode='donot_use_mm_for_euclid_dist')
        bias = self.slope.view(-1, 1, 1) * far.unsqueeze(1)
        return F.scaled_dot_product_attention(
            *self.heads, attn_mask=bias.to(self.rows[0].dtype))

    def flexible(self) -> Tensor:
        assert self.flex is not None
        return self.flex(*self.heads, score_mod=self.score_mod)

    def contenders(self, backward: bool) -> dict[str, Contender | None]:
        rows, slope = self.rows, [self.slope]
        by_heads = self.heads, self.heads_weight
        cases: dict[str, Any] = {
            'shuffled': (lambda: self.ours('shuffled'), [*rows, *slope],
                         self.weight),
            'in order': (lambda: self.ours('in order'), [*rows, *slope],
                         self.weight),
            'plain': (self.plain, *by_heads),
            'bias': (self.bias, [*self.heads, *slope], self.heads_weight),
            'flex': (self.flexible, *by_heads)}
        if self.flex is None:
            del cases['flex']
        return {name: make_step(*case, backward)
                for name, case in cases.items()}

    def check(self) -> None:
        r"""Ours, SDPA with a bias and FlexAttention agree."""
        with torch.no_grad():
            expected = self.bias().float()
            others = {'ours': self.split(self.ours('shuffled'))}
            if self.flex is not None:
                others['FlexAttention'] = self.flexible()
        most = TOLERANCES[self.rows[0].dtype] * expected.abs().max()
        for name, other in others.items():
            error = (other.float() - expected).abs().max()
            if not error <= most:
                raise RuntimeError(f'{name} is off by {error:.1e}')


def make_score_mod(pos: Tensor, slope: Tensor) -> Callable[..., Tensor]:
    r"""The bias as FlexAttention takes it, from positions in balls."""
    def score_mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor,
                  j: Tensor) -> Tensor:
        x, y, z = (pos[b, i, d] - pos[b, j, d] for d in range(3))
        return score + slope[h] * (x * x + y * y + z * z).sqrt()

    return score_mod


def make_step(run: Callable[[], Tensor], variables: list[Tensor],
              weight: Tensor, backward: bool) -> Contender:
    def step() -> object:
        if backward:
            return torch.autograd.grad(run(), variables, weight)
        with torch.no_grad():
            return run()

    return step


def cases(context: Context) -> list[tuple[int, int, torch.dtype, str]]:
    r"""Ball sizes, widths, types and the precision of products, what matters
    most first.
    """
    half, full = torch.bfloat16, torch.float32
    kinds = (half, 'highest'), (full, 'highest'), (full, 'high')
    if context.tiny:
        return [(16, 8, *kind) for kind in kinds]
    return [(size, width, *kind) for size in (256, 128, 64, 512)
            for kind in kinds for width in (16, 32, 64)]


@contextmanager
def products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def make_table(title: str, num_points: int) -> Table:
    return Table(
        title, ['balls of', 'width', 'type', *NAMES.values(), 'ours / no bias',
                'in order / no bias', 'SDPA, bias / ours'],
        f'{num_points:,} points, {HEADS} heads. Ours computes distances, and '
        'gathers the points, shuffled or in order, from rows; the others get '
        'queries, keys and values in balls, and FlexAttention computes '
        'distances from positions in balls. No bias: the flash kernel for '
        "bfloat16. TF32: after `torch.set_float32_matmul_precision('high')`. "
        'Gradients are those of queries, keys, values and, but for '
        f'FlexAttention, slopes. Aim: at most {AIM} times no bias.')


def run(context: Context) -> Iterator[Table]:
    n = 512 if context.tiny else 2**18
    tables = [make_table(title, n)
              for title in ('Attention: forward',
                            'Attention: forward and backward')]
    memory = Table('Attention: memory, forward and backward',
                   ['balls of', 'width', 'type', *NAMES.values()],
                   f'Peak memory of a step, {n:,} points.')
    todo = cases(context)
    for done, case in enumerate(todo):
        if not context.has_time():
            memory.note += f' No time for {len(todo) - done} cases.'
            break
        size, width, dtype, precision = case
        label = [str(size), str(width), str(dtype).removeprefix('torch.')
                 + ', TF32' * (precision == 'high')]
        with (context.guard(f'attention, balls of {", ".join(label)}'),
              products(precision)):
            problem = Problem(context, n, size, width, dtype)
            problem.check()
            if context.compiles and case[:3] in FLEX:
                add_flex(context, problem)
            for backward, table in enumerate(tables):
                found = context.time(problem.contenders(bool(backward)))
                table.rows.append([*label, *compare(found)])
            peaks = {name: context.peak(fn) for name, fn
                     in problem.contenders(True).items() if fn is not None}
            memory.rows.append([*label, *(show_bytes(peaks.get(name))
                                          for name in NAMES)])
        yield from [*tables, memory]


def add_flex(context: Context, problem: Problem) -> None:
    torch.compiler.reset()
    with context.guard('FlexAttention'):
        problem.flex = torch.compile(flex_attention, dynamic=False)
        problem.check()
        return
    problem.flex = None


def compare(found: dict[str, float]) -> list[str]:
    def ratio(a: str, b: str) -> float | None:
        return found[a] / found[b] if a in found and b in found else None

    aims = [ratio('shuffled', 'plain'), ratio('in order', 'plain')]
    rest = ratio('bias', 'shuffled')
    return [*(show_time(found.get(name)) for name in NAMES),
            *('' if x is None else at_most(x, AIM) for x in aims),
            '' if rest is None else f'{rest:.2f}x']
