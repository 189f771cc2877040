r"""Batches of point clouds that hurt, as hypothesis strategies."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

SHAPES = ('normal', 'clustered', 'lattice', 'duplicates', 'line', 'huge',
          'tiny', 'offset')


@dataclass
class Clouds:
    pos: Tensor
    batch: Tensor
    sizes: list[int]

    @property
    def ptr(self) -> Tensor:
        return torch.tensor([0, *self.sizes]).cumsum(0)

    def split(self) -> list[Tensor]:
        return list(self.pos.split(self.sizes))


def make_pos(shape: str, size: int, dim: int, seed: int,
             dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    if shape == 'clustered':
        pos = pos * torch.rand(size, 1, generator=generator).double()**8
    elif shape == 'lattice':
        pos = (2 * pos).round()
    elif shape == 'duplicates':
        pos = pos[torch.randint(0, size // 5 + 1, (size, ),
                                generator=generator)]
    elif shape == 'line':
        pos = pos[:, :1].expand(size, dim)
    elif shape == 'huge':
        pos = pos * (1e3 if dtype == torch.float16 else 1e16)
    elif shape == 'tiny':
        pos = pos * (1e-6 if dtype == torch.float16 else 1e-42)
    elif shape == 'offset':
        pos = pos + 1000
    return pos.to(dtype).contiguous()


def sizes(most: int = 700, clouds: int = 4) -> st.SearchStrategy:
    size = st.one_of(st.integers(0, 5), st.integers(0, 70),
                     st.integers(0, most))
    return st.lists(size, min_size=1, max_size=clouds)


@st.composite
def clouds(
    draw: st.DrawFn,
    most: int = 700,
    max_clouds: int = 4,
    dims: tuple[int, int] = (1, 5),
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64),
    shapes: tuple[str, ...] = SHAPES,
) -> Clouds:
    n = draw(sizes(most, max_clouds))
    pos = make_pos(draw(st.sampled_from(shapes)), sum(n),
                   draw(st.integers(*dims)), draw(st.integers(0, 2**31)),
                   draw(st.sampled_from(dtypes)))
    batch = torch.arange(len(n)).repeat_interleave(torch.tensor(n))
    return Clouds(pos, batch, n)


@st.composite
def level_sizes(draw: st.DrawFn, most_levels: int = 4,
                smallest: int = 0) -> tuple[list[int], list[int]]:
    r"""Ball sizes of 2 to 256 and strides that fit them."""
    levels = draw(st.integers(1, most_levels))
    ball_sizes = [2**draw(st.integers(1, 8)) for _ in range(levels)]
    strides = [
        min(2**draw(st.integers(smallest, 3)), size)
        for size in ball_sizes[:-1]
    ]
    return ball_sizes, strides
