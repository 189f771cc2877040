r"""The ball tree of a batch of point clouds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.centers import group_centers
from torch_geometric_erwin.tree import groups


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

        return Level(**{k: each(v) for k, v in self.__dict__.items()})


@dataclass(frozen=True, eq=False, repr=False)
class BallTree:
    r"""The ball tree of a batch of point clouds, from the `"Erwin: A
    Tree-based Hierarchical Transformer for Large-scale Physical Systems"
    <https://arxiv.org/abs/2502.17019>`_ paper (Definition 3.2).

    It takes the place that :obj:`edge_index` has in message passing: layers
    are called as :obj:`layer(x, tree)`, with features in the order of the
    points. Make one with :meth:`build`, :meth:`from_data` or
    :meth:`from_permutation`.

    Args:
        pos: Positions of the points, shape :math:`(N, D)`; inside the cell
            if the tree is periodic.
        batch: The cloud of each point, shape :math:`(N)`.
        levels: The levels, finest first.
        mass: How many points of the finest level each point stands for,
            shape :math:`(N)`; :obj:`None` for one each.
        box: The edges of each cloud's periodic cell, shape :math:`(B, D)`.
        virtual: :obj:`"masked"` if virtual slots are invisible;
            :obj:`"copy"` if they count as copies of their points.
    """
    pos: Tensor
    batch: Tensor
    levels: tuple[Level, ...]
    mass: Tensor | None = None
    box: Tensor | None = None
    virtual: str = 'masked'

    @staticmethod
    def build(
        pos: Tensor,
        batch: Tensor | None = None,
        *,
        ball_size: int | Sequence[int] = 128,
        strides: Sequence[int] = (),
        rotations: Sequence[float] = (0., 45.),
        completion: str = 'balanced',
        box: Tensor | Sequence[float] | float | None = None,
        ptr: Tensor | None = None,
    ) -> 'BallTree':
        r"""Builds the tree on the device of :obj:`pos` (Algorithm 1).

        Args:
            pos: Positions, shape :math:`(N, D)`, :math:`D \geq 1`. They
                may require gradients: :attr:`pos` carries them on, at every
                level.
            batch: The cloud of each point, shape :math:`(N)`, in any order;
                a number that does not occur is an empty cloud.
                (default: :obj:`None`, one cloud)
            ball_size: The number of slots of a ball, a power of two, or one
                such number per level. (default: :obj:`128`)
            strides: How many slots make a point of the next level, powers of
                two: one level more than there are strides.
                (default: :obj:`()`)
            rotations: The orientations to cut each level in, as angles in
                degrees. A cloud is rotated in the planes of neighbouring
                axes; along a line the balls move by :obj:`angle / 90` of a
                ball instead; in a periodic cell the cloud is shifted first.
                (default: :obj:`(0., 45.)`)
            completion: :obj:`"balanced"` fills the fewest balls that hold
                the points, as evenly as whole points allow;
                :obj:`"perfect"` is the paper's tree of :math:`2^m` slots.
                (default: :obj:`"balanced"`)
            box: The edges of the periodic cell: a number, shape :math:`(D)`
                or one cell per cloud, shape :math:`(B, D)`.
                (default: :obj:`None`)
            ptr: Where each cloud begins, shape :math:`(B + 1)`, instead of
                :obj:`batch`. (default: :obj:`None`)

        Raises:
            ValueError: If an argument has a wrong shape, type or value, or
                positions are not finite.
        """
        from torch_geometric_erwin.tree.build import build
        return build(pos, batch, ball_size, strides, rotations, completion,
                     box, ptr)

    @staticmethod
    def from_data(data: Any) -> 'BallTree':
        r"""Reads the tree that
        :class:`~torch_geometric_erwin.transforms.AddBallTree` or
        :meth:`to_data` wrote, and connects it to :obj:`data.pos`, or
        to the attribute that it was written with.

        Args:
            data: A :class:`~torch_geometric.data.Data`, a
                :class:`~torch_geometric.data.Batch`, or a node store of a
                :class:`~torch_geometric.data.HeteroData`.

        Raises:
            ValueError: If it holds no tree, or one of other points.
        """
        from torch_geometric_erwin.tree.storage import read_tree
        return read_tree(data)

    def to_data(self, data: Any, attr: str = 'pos') -> Any:
        r"""Writes the tree to :obj:`data` as plain tensors, which survive
        batching, slicing, workers and files; returns :obj:`data`.

        Args:
            data: A :class:`~torch_geometric.data.Data`, a
                :class:`~torch_geometric.data.Batch`, or a node store of a
                :class:`~torch_geometric.data.HeteroData`.
            attr: The name of the attribute of :obj:`data` that holds, or will
                hold, the positions.

        Raises:
            ValueError: If the clouds' points do not follow one another, or
                the tree has other points than :obj:`data`.
        """
        from torch_geometric_erwin.tree.storage import write_tree
        return write_tree(self, data, attr)

    @staticmethod
    def from_permutation(
        pos: Tensor,
        batch: Tensor | None,
        index: Tensor,
        mask: Tensor | None,
        *,
        ball_size: int | Sequence[int],
        strides: Sequence[int] = (),
        rotated: Sequence[Tensor] | None = None,
        virtual: str = 'masked',
    ) -> 'BallTree':
        r"""Wraps a tree that somebody else built.

        Args:
            pos: Positions, shape :math:`(N, D)`.
            batch: The cloud of each point, shape :math:`(N)`, or
                :obj:`None`.
            index: The point in each slot, shape :math:`(S)`.
            mask: Which slots are real, shape :math:`(S)`; every point has
                one such slot. :obj:`None` if all are.
            ball_size: As in :meth:`build`.
            strides: As in :meth:`build`.
            rotated: A second orientation: for each level a permutation of
                its slots.
            virtual: :obj:`"masked"` makes virtual slots invisible;
                :obj:`"copy"` treats them as copies of their points, as the
                authors' code does.

        Raises:
            ValueError: If shapes do not fit or :obj:`index` misses a point.
        """
        from torch_geometric_erwin.tree.permutation import from_permutation
        return from_permutation(pos, batch, index, mask, ball_size, strides,
                                rotated, virtual)

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

    def coarsen(self) -> 'BallTree':
        r"""Returns the next level's tree.

        Its points are groups of this level's slots, at their centres of
        mass. Differentiable in :attr:`pos`.

        Raises:
            ValueError: If this is the last level.
        """
        level, coarse = self._two_levels()
        assert level.stride is not None
        center, mass = group_centers(self.pos, self.mass, level.index[0],
                                     level.mask, level.stride)
        batch = self.batch[level.index[0][::level.stride]]
        if coarse.group is not None:
            center, mass = center[coarse.group], mass[coarse.group]
            batch = batch[coarse.group]
        return replace(self, pos=center, mass=mass, batch=batch,
                       levels=self.levels[1:])

    def cluster(self) -> Tensor:
        r"""Returns the point of the next level that each point is pooled
        into, shape :math:`(N)`, as PyG's pooling calls it.

        Raises:
            ValueError: If this is the last level.
        """
        return groups.coarse_point(self.levels[0].inverse[0],
                                   *self._two_levels())

    def children(self) -> tuple[Tensor, Tensor | None]:
        r"""Returns the points that each point of the next level is made of:
        the inverse of :meth:`cluster`.

        Returns:
            The children of each coarse point, shape :math:`(M,
            \text{stride})`, and which of them are real, of the same shape;
            :obj:`None` if all are.

        Raises:
            ValueError: If this is the last level.
        """
        return groups.children(*self._two_levels())

    def in_slot_order(self) -> tuple['BallTree', Tensor, Tensor]:
        r"""Returns the tree with its points numbered as they come in the
        slots of the first orientation, so that balls are neighbors in
        memory, and the way there and back.

        If virtual slots count as copies of their points, every slot becomes
        a point.

        Returns:
            The tree; :obj:`index`, so that :obj:`x[index]` are features in
            the new order; :obj:`inverse`, so that :obj:`x[inverse]` brings
            them back.
        """
        from torch_geometric_erwin.tree.slot_order import in_slot_order
        return in_slot_order(self)

    def with_masks(self) -> 'BallTree':
        r"""Returns the tree with masks at all levels, also where no slot is
        virtual. :func:`torch.compile` then finds the same structure in every
        batch, and compiles once.
        """
        from torch_geometric_erwin.tree.slot_order import with_masks
        return with_masks(self)

    def offsets(self, partition: int = 0) -> Tensor:
        r"""Returns the position of each point relative to the center of mass
        of its ball (equation 9), shape :math:`(N, D)`. Differentiable in
        :attr:`pos`. In a periodic cell the nearest images count.

        Args:
            partition: The orientation. (default: :obj:`0`)
        """
        from torch_geometric_erwin.tree.offsets import ball_offsets
        return ball_offsets(self, partition)

    def box_of_ball(self, partition: int = 0) -> Tensor | None:
        r"""Returns the periodic cell that each ball lies in, shape
        :math:`(\text{balls}, D)`; :obj:`None` if the tree is not periodic.

        Args:
            partition: The orientation. (default: :obj:`0`)
        """
        if self.box is None:
            return None
        first = self.partition(partition).index[::self.ball_size]
        return self.box[self.batch[first]]

    def ball_of_point(self, level: int = 0) -> Tensor:
        r"""Returns the ball of :obj:`level` that each point lies in, shape
        :math:`(N)`.
        """
        self._check_level(level)
        slot = self.levels[0].inverse[0]
        for i in range(level):
            point = groups.coarse_point(slot, *self.levels[i:i + 2])
            slot = self.levels[i + 1].inverse[0][point]
        return slot // self.levels[level].ball_size

    def centers(self, level: int = 0) -> Tensor:
        r"""Returns the centre of mass of every ball of a level (Definition
        3.2), shape :math:`(\text{balls}, D)`.

        Args:
            level: How many times the tree is coarsened.
        """
        ball = self.ball_of_point(level)
        balls = self.levels[level].num_slots // self.levels[level].ball_size
        mass = self.mass
        if mass is None:
            mass = torch.ones_like(self.pos[:, 0])
        total = mass.new_zeros(balls).index_add_(0, ball, mass)
        share = mass / total[ball]
        zeros = self.pos.new_zeros(balls, self.pos.size(1))
        return zeros.index_add(0, ball, self.pos * share.unsqueeze(1))

    def radii(self, level: int = 0) -> Tensor:
        r"""Returns the distance of the farthest point of every ball of a
        level to its centre (Definition 3.2), shape :math:`(\text{balls})`.

        Args:
            level: How many times the tree is coarsened.
        """
        ball = self.ball_of_point(level)
        centers = self.centers(level)
        offset = self.pos - centers[ball]
        square = offset.square().sum(1)
        far = torch.zeros_like(centers[:, 0]).scatter_reduce(
            0, ball, square, 'amax', include_self=True)
        positive = far > 0  # the root has no derivative at zero
        return torch.where(positive, far, 1.).sqrt() * positive

    def edge_index(self, partition: int | None = 0, *,
                   loop: bool = True) -> Tensor:
        r"""Returns the balls as a graph: every pair of points of a ball, as
        :obj:`(source, target)`, shape :math:`(2, E)`, sorted by the target's
        slot.

        Args:
            partition: The orientation; :obj:`None` for all of them, one
                after the other. (default: :obj:`0`)
            loop: Whether a point is its own neighbor, as in attention.
                (default: :obj:`True`)

        Raises:
            ValueError: If virtual slots count as points.
        """
        if self.virtual == 'copy':
            raise ValueError("Expected 'virtual' to be 'masked' to take the "
                             "balls as a graph of points (got 'copy')")
        if partition is None:
            parts = [self.edge_index(i, loop=loop)
                     for i in range(self.num_orientations)]
            return torch.cat(parts, dim=1)
        part = self.partition(partition)
        index, mask = part.index, part.mask
        slots = torch.arange(self.num_slots, device=self.device)
        slots = slots.view(-1, self.ball_size)
        size = (len(slots), self.ball_size, self.ball_size)
        target = slots.unsqueeze(2).expand(size).flatten()
        source = slots.unsqueeze(1).expand(size).flatten()
        keep = source != target if not loop else None
        if mask is not None:
            real = mask[source] & mask[target]
            keep = real if keep is None else keep & real
        if keep is not None:
            source, target = source[keep], target[keep]
        return torch.stack([index[source], index[target]])

    def knn_graph(self, k: int, *, loop: bool = False) -> Tensor:
        r"""Connects each point to its :obj:`k` nearest neighbors, see
        :func:`torch_geometric_erwin.knn_graph`.

        Args:
            k: The number of neighbors.
            loop: Whether a point is its own neighbor, too.
                (default: :obj:`False`)
        """
        from torch_geometric_erwin.tree.knn_op import tree_knn_graph
        return tree_knn_graph(self.pos.detach(), self.batch, k, loop,
                              self.num_clouds, self.box)[0]

    def apply(self, fn: Callable[[Tensor], Tensor]) -> 'BallTree':
        r"""Returns the tree with a function applied to all its tensors."""
        return replace(
            self,
            pos=fn(self.pos),
            batch=fn(self.batch),
            mass=None if self.mass is None else fn(self.mass),
            box=None if self.box is None else fn(self.box),
            levels=tuple(level.apply(fn) for level in self.levels),
        )

    def to(self, device: torch.device | str | int,
           non_blocking: bool = False) -> 'BallTree':
        r"""Returns the tree on a device."""
        return self.apply(lambda x: x.to(device, non_blocking=non_blocking))

    def cpu(self) -> 'BallTree':
        return self.to('cpu')

    def cuda(self, device: int | str = 'cuda',
             non_blocking: bool = False) -> 'BallTree':
        return self.to(device, non_blocking)

    def pin_memory(self) -> 'BallTree':
        r"""Returns the tree in page-locked memory."""
        return self.apply(lambda x: x.pin_memory())

    def _two_levels(self) -> tuple[Level, Level]:
        if len(self.levels) < 2:
            raise ValueError(
                "Expected 'strides' to be given when the tree was built, in "
                "order to coarsen it (got a tree with no coarser level)")
        return self.levels[0], self.levels[1]

    def _check_level(self, level: int) -> None:
        if not 0 <= level < self.num_levels:
            raise ValueError(
                f"Expected 'level' to be in [0, {self.num_levels}) "
                f"(got {level})")

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
