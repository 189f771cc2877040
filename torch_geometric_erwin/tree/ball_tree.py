r"""The ball tree of a batch of point clouds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_geometric_erwin.ops.build_tree.centers import group_centers
from torch_geometric_erwin.ops.build_tree.orientation import Rotation
from torch_geometric_erwin.ops.build_tree.reference import to_origin
from torch_geometric_erwin.ops.distance import at_least_float
from torch_geometric_erwin.tree import groups
from torch_geometric_erwin.tree.offsets import (
    ball_offsets,
    child_offsets,
    unwrap,
)

if TYPE_CHECKING:
    from torch_geometric_erwin.tree.edges import TreeEdges


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
        box: The periodic cell of each cloud: its edges, shape :math:`(B,
            D)`, or its vectors as rows, shape :math:`(B, D, D)`, with zeros
            for directions that are not periodic.
        cell: What computations need of it, made of :obj:`box`.
        image: How many short vectors of the cell the caller's positions were
            moved by, shape :math:`(N, D)`.
        virtual: :obj:`"masked"` if virtual slots are invisible;
            :obj:`"copy"` if they count as copies of their points.
        rotations: The orientations it was built in; :obj:`None` if somebody
            else built it.
        completion: How it was built: :obj:`"balanced"`, :obj:`"perfect"` or
            :obj:`None`.
    """
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

    @staticmethod
    def build(
        pos: Tensor,
        batch: Tensor | None = None,
        *,
        ball_size: int | Sequence[int] = 128,
        strides: Sequence[int] = (),
        rotations: Sequence[Rotation] = (0., 45.),
        completion: str = 'balanced',
        box: Tensor | Sequence[Any] | float | None = None,
        pbc: Tensor | Sequence[Any] | bool | None = None,
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
                axes. Instead of an angle, there may be the orthogonal matrix
                that positions (as rows) are multiplied by. Along a line
                the balls move by :obj:`angle / 90` of a ball instead; in a
                periodic cell the cloud is shifted first.
                (default: :obj:`(0., 45.)`)
            completion: :obj:`"balanced"` fills the fewest balls that hold
                the points, as evenly as whole points allow;
                :obj:`"perfect"` is the paper's tree of :math:`2^m` slots.
                (default: :obj:`"balanced"`)
            box: The periodic cell. Edges of rectangular cells: a number,
                shape :math:`(D)` or, for each cloud, :math:`(B, D)`. Vectors
                of any cells, as rows: shape :math:`(D, D)` or :math:`(B, D,
                D)`; zeros for a direction that is not periodic. Of as many
                clouds as dimensions, positive numbers of shape :math:`(D,
                D)` are edges; :math:`(1, D, D)` always are vectors. May
                require gradients. (default: :obj:`None`)
            pbc: Which directions are periodic, shape :math:`(D)` or
                :math:`(B, D)`. (default: :obj:`None`, all)
            ptr: Where each cloud begins, shape :math:`(B + 1)`, instead of
                :obj:`batch`. (default: :obj:`None`)

        Raises:
            ValueError: If an argument has a wrong shape, type or value, or
                positions are not finite.
        """
        from torch_geometric_erwin.tree.build import build
        return build(pos, batch, ball_size, strides, rotations, completion,
                     box, pbc, ptr)

    def with_pos(self, pos: Tensor) -> 'BallTree':
        r"""Returns the tree with its points moved, for example by a step of
        a simulation. The balls keep their points, and become less compact
        as these move apart: build a new tree once they have moved by about a
        ball's radius. In a periodic cell any images of points may be given,
        as long as no point has moved by half a cell against others of its
        ball.

        Args:
            pos: Positions in the same order, shape :math:`(N, D)`.

        Raises:
            ValueError: If these are not finite numbers for the tree's
                points.
        """
        from torch_geometric_erwin.tree.build import move
        return move(self, pos)

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
        center, mass = group_centers(unwrap(self, 0), self.mass,
                                     level.index[0], level.mask, level.stride)
        batch = self.batch[level.index[0][::level.stride]]
        if coarse.group is not None:
            center, mass = center[coarse.group], mass[coarse.group]
            batch = batch[coarse.group]
        return replace(self, pos=center, mass=mass, batch=batch, image=None,
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

    def centered(self) -> 'BallTree':
        r"""Returns the tree with each cloud moved to the origin, where single
        precision tells points apart best; in a periodic cell, as it is.
        """
        if self.cell is not None:
            return self
        return replace(self, pos=to_origin(at_least_float(self.pos),
                                           self.batch, self.num_clouds))

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
        :attr:`pos`.

        In a periodic cell a ball consists of those images of its points that
        lay side by side when it was cut, in a frame which another
        orientation shifts. So do its center and these offsets, which sum to
        zero (times masses), also where a ball is as wide as the cell.

        Args:
            partition: The orientation. (default: :obj:`0`)
        """
        return ball_offsets(self, partition)

    def child_offsets(self) -> Tensor:
        r"""Returns the positions of each coarse point's :meth:`children`
        relative to it, shape :math:`(M, \text{stride}, D)`; zero for virtual
        ones. Differentiable in :attr:`pos`.

        Raises:
            ValueError: If this is the last level.
        """
        return child_offsets(self)

    def edge_vectors(self, edge_index: Tensor,
                     edge_shift: Tensor | None = None,
                     source: 'BallTree | None' = None) -> Tensor:
        r"""Returns the vectors from targets to sources, shape :math:`(E,
        D)`. Differentiable in positions and the cell.

        Args:
            edge_index: Sources and targets, shape :math:`(2, E)`.
            edge_shift: How many of the cell's vectors lead from the sources
                to their images, for positions as they were when the tree was
                built or moved, shape :math:`(E, D)`: what
                :meth:`knn_graph` and the transform
                :class:`~torch_geometric_erwin.transforms.AddBallGraph`
                return on demand. (default: :obj:`None`, the nearest images)
            source: The tree of the sources, if these are not the points of
                this tree. (default: :obj:`None`)
        """
        from torch_geometric_erwin.tree.edges import edge_vectors
        return edge_vectors(self, edge_index, edge_shift, source)

    def edges(self, edge_index: Tensor, edge_shift: Tensor | None = None,
              source: 'BallTree | None' = None) -> 'TreeEdges':
        r"""Returns what layers that pass messages along the same edges have
        in common, to give it to them in place of :obj:`edge_index`: vectors
        along the edges, and lists of each point's edges.

        Args:
            edge_index: Sources and targets, shape :math:`(2, E)`, in any
                order; that of :meth:`knn_graph` is the fastest.
            edge_shift: See :meth:`edge_vectors`. (default: :obj:`None`)
            source: See :meth:`edge_vectors`. (default: :obj:`None`)

        Raises:
            ValueError: If an edge begins or ends where there is no point.
        """
        from torch_geometric_erwin.tree.edges import tree_edges
        return tree_edges(self, edge_index, edge_shift, source)

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

    def ball_of_point(self, level: int = 0) -> Tensor:
        r"""Returns the ball of :obj:`level` that each point lies in, shape
        :math:`(N)`.
        """
        return self._descend(level)[1] // self.levels[level].ball_size

    def centers(self, level: int = 0) -> Tensor:
        r"""Returns the centre of mass of every ball of a level (Definition
        3.2), shape :math:`(\text{balls}, D)`.

        Args:
            level: How many times the tree is coarsened.
        """
        return self._measure_balls(level)[0]

    def radii(self, level: int = 0) -> Tensor:
        r"""Returns the distance of the farthest point of every ball of a
        level to its centre (Definition 3.2), shape :math:`(\text{balls})`.

        Args:
            level: How many times the tree is coarsened.
        """
        center, ball, offset = self._measure_balls(level)
        square = offset.square().sum(1)
        far = square.new_zeros(len(center)).scatter_reduce(
            0, ball, square, 'amax', include_self=True)
        positive = far > 0  # the root has no derivative at zero
        return torch.where(positive, far, 1.).sqrt() * positive

    def _measure_balls(self, level: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the centers of a level's balls, and for each point its
        ball and its offset from there.
        """
        tree, slot, offset = self._descend(level)
        ball, last = slot // tree.ball_size, tree.levels[0]
        center, _ = group_centers(unwrap(tree, 0), tree.mass, last.index[0],
                                  last.mask, tree.ball_size)
        if self.virtual == 'masked':
            return center, ball, offset
        # Copies of points counted so far.
        mass = torch.ones_like(offset[:, 0]) if self.mass is None else (
            self.mass)
        total = mass.new_zeros(len(center)).index_add_(0, ball, mass)
        share = (mass / total[ball]).unsqueeze(1)
        mean = torch.zeros_like(center).index_add(0, ball, offset * share)
        return center + mean, ball, offset - mean[ball]

    def _descend(self, level: int) -> tuple['BallTree', Tensor, Tensor]:
        r"""Returns the tree of a level, and for each point of this one its
        slot there, and its offset from the center of its ball there.
        """
        self._check_level(level)
        tree, slot = self, self.levels[0].inverse[0]
        offset = torch.zeros_like(at_least_float(self.pos))
        point = torch.arange(self.num_points, device=self.device)
        for _ in range(level):
            stride = tree.strides[0]
            up = groups.coarse_point(slot, *tree._two_levels())
            offset = offset + tree.child_offsets()[up, slot % stride]
            tree, point = tree.coarsen(), up
            slot = tree.levels[0].inverse[0][point]
        return tree, slot, offset + tree.offsets()[point]

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

    def knn_graph(self, k: int, *, loop: bool = False,
                  return_shift: bool = False) -> Any:
        r"""Connects each point to its :obj:`k` nearest neighbors, see
        :func:`torch_geometric_erwin.knn_graph`.

        Args:
            k: The number of neighbors.
            loop: Whether a point is its own neighbor, too.
                (default: :obj:`False`)
            return_shift: Whether to return the shifts of edges in a periodic
                cell, too, for :meth:`edge_vectors`. (default: :obj:`False`)
        """
        from torch_geometric_erwin.tree.edges import shift_to_caller
        from torch_geometric_erwin.tree.knn_op import tree_knn_graph
        box = None if self.box is None else self.box.detach()
        edge_index, shift = tree_knn_graph(self.pos.detach(), self.batch, k,
                                           loop, self.num_clouds, box)
        if not return_shift:
            return edge_index
        if box is None:
            return edge_index, None
        return edge_index, shift_to_caller(self, edge_index, shift)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> 'BallTree':
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
