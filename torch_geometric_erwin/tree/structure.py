r"""What a ball tree consists of, below all that builds or uses it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.orientation import Rotation

TreeT = TypeVar('TreeT', bound='Structure')


@dataclass(frozen=True, eq=False)
class Partition:
    r"""One cut of the points into balls, :math:`S` slots in all.

    Args:
        index: The point in each slot, shape :math:`(S)`. A virtual slot
            repeats the point before it.
        inverse: The slot of each point, shape :math:`(N)`.
        mask: Which slots are real, shape :math:`(S)`; :obj:`None` if all are.
    """
    index: Tensor
    inverse: Tensor
    mask: Tensor | None


@dataclass(frozen=True, eq=False)
class Level:
    r"""The slots of one level of a tree, for all its orientations.

    Args:
        ball_size: The number of slots of a ball.
        stride: The number of slots that make a point of the next level;
            :obj:`None` at the last level.
        ptr: Where each cloud's points begin, shape :math:`(B + 1)`.
        index: For each orientation the point in each slot, shape :math:`(S)`.
        inverse: For each orientation the slot of each point, shape
            :math:`(N)`.
        mask: Which slots are real, shape :math:`(S)`; :obj:`None` if all are.
        group: Which group of slots of the level before each point stands
            for, shape :math:`(N)`; :obj:`None` if that is its own number.
        masks: The mask of each orientation, where they differ.
        slots: For each orientation the slot of the first orientation that
            each slot takes, where copies of a point tell slots apart.
        place: For each orientation of a periodic tree whose points may have
            moved: where each slot's point lay, relative to the first of its
            ball, in 127ths of the cell's vectors, int8, shape :math:`(S,
            D)`.
    """
    ball_size: int
    stride: int | None
    ptr: Tensor
    index: tuple[Tensor, ...]
    inverse: tuple[Tensor, ...]
    mask: Tensor | None = None
    group: Tensor | None = None
    masks: tuple[Tensor | None, ...] | None = None
    slots: tuple[Tensor, ...] | None = None
    place: tuple[Tensor, ...] | None = None

    @property
    def num_points(self) -> int:
        return self.inverse[0].numel()

    @property
    def num_slots(self) -> int:
        return self.index[0].numel()

    def apply(self, fn: Callable[[Tensor], Tensor]) -> 'Level':
        def each(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(each(item) for item in value)
            return fn(value) if isinstance(value, Tensor) else value

        return Level(**{k: each(v) for k, v in vars(self).items()})


@dataclass(frozen=True, eq=False, repr=False)
class Structure:
    r"""The fields of a ball tree, and what follows from them."""
    pos: Tensor
    batch: Tensor
    levels: tuple[Level, ...]
    mass: Tensor | None = None
    box: Tensor | None = None
    cell: Tensor | None = None
    image: Tensor | None = None
    virtual: str = 'masked'
    rotations: tuple[Rotation, ...] | None = None
    completion: str | None = None
    axes: str | None = None

    @property
    def ptr(self) -> Tensor:
        r"""Where each cloud's points begin, shape :math:`(B + 1)`."""
        return self.levels[0].ptr

    @property
    def num_points(self) -> int:
        return self.pos.size(0)

    @property
    def num_clouds(self) -> int:
        return self.ptr.numel() - 1

    @property
    def num_slots(self) -> int:
        return self.levels[0].num_slots

    @property
    def num_balls(self) -> int:
        return self.num_slots // self.ball_size

    @property
    def ball_size(self) -> int:
        return self.levels[0].ball_size

    @property
    def num_levels(self) -> int:
        return len(self.levels)

    @property
    def num_orientations(self) -> int:
        return len(self.levels[0].index)

    @property
    def ball_sizes(self) -> list[int]:
        return [level.ball_size for level in self.levels]

    @property
    def strides(self) -> list[int]:
        return [level.stride for level in self.levels if level.stride]

    @property
    def device(self) -> torch.device:
        return self.pos.device

    def partition(self, i: int = 0) -> Partition:
        r"""Returns the cut in the :obj:`i`-th orientation."""
        level = self.levels[0]
        if not -len(level.index) <= i < len(level.index):
            raise ValueError(
                f"Expected 'i' to be one of the tree's {len(level.index)} "
                f"orientations (got {i})")
        mask = level.mask if level.masks is None else level.masks[i]
        return Partition(level.index[i], level.inverse[i], mask)

    def cell_of_points(self) -> Tensor:
        r"""Returns :obj:`cell` for each point, or a single one for all."""
        assert self.cell is not None
        if not torch.compiler.is_compiling() and self.cell.size(0) == 1:
            return self.cell
        return self.cell[self.batch]

    def box_of_ball(self, partition: int = 0) -> Tensor | None:
        r"""Returns :obj:`cell` for each ball; :obj:`None` if the tree is not
        periodic.

        Args:
            partition: The orientation. (default: :obj:`0`)
        """
        if self.cell is None:
            return None
        first = self.partition(partition).index[::self.ball_size]
        return self.cell[self.batch[first]]

    def apply(self: TreeT, fn: Callable[[Tensor], Tensor]) -> TreeT:
        r"""Returns the tree with a function applied to all its tensors."""
        return replace(
            self,
            pos=fn(self.pos),
            batch=fn(self.batch),
            mass=None if self.mass is None else fn(self.mass),
            box=None if self.box is None else fn(self.box),
            cell=None if self.cell is None else fn(self.cell),
            image=None if self.image is None else fn(self.image),
            levels=tuple(level.apply(fn) for level in self.levels),
        )

    def to(self: TreeT, device: torch.device | str | int,
           non_blocking: bool = False) -> TreeT:
        r"""Returns the tree on a device."""
        return self.apply(lambda x: x.to(device, non_blocking=non_blocking))

    def cpu(self: TreeT) -> TreeT:
        return self.to('cpu')

    def cuda(self: TreeT, device: int | str = 'cuda',
             non_blocking: bool = False) -> TreeT:
        return self.to(device, non_blocking)

    def pin_memory(self: TreeT) -> TreeT:
        r"""Returns the tree in page-locked memory."""
        return self.apply(lambda x: x.pin_memory())

    def __repr__(self) -> str:
        balls = [lvl.num_slots // lvl.ball_size for lvl in self.levels]
        virtual = self.num_slots - self.num_points
        share = 100 * virtual / max(self.num_slots, 1)
        parts = [
            f'num_points={self.num_points}',
            f'num_clouds={self.num_clouds}',
            f'dim={self.pos.size(1)}',
            f'ball_size={self.ball_sizes}',
            f'strides={self.strides}',
            f'num_balls={balls}',
            f'orientations={self.num_orientations}',
            f'virtual={virtual} ({share:.1f}%)',
            f'device={str(self.device)!r}',
        ]
        if self.box is not None:
            parts.append('periodic')
        return f'{self.__class__.__name__}({", ".join(parts)})'
