r"""The ball tree of a batch of point clouds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from torch_geometric_erwin.ops.build_tree.orientation import Rotation
from torch_geometric_erwin.ops.build_tree.reference import to_origin
from torch_geometric_erwin.ops.distance import at_least_float
from torch_geometric_erwin.tree.build import build, move
from torch_geometric_erwin.tree.centers import descend, measure, radii
from torch_geometric_erwin.tree.edges import (
    TreeEdges,
    balls_as_graph,
    edge_vectors,
    knn_graph,
    tree_edges,
)
from torch_geometric_erwin.tree.groups import children, coarse_point
from torch_geometric_erwin.tree.offsets import (
    ball_offsets,
    child_offsets,
    coarsen,
)
from torch_geometric_erwin.tree.permutation import from_permutation
from torch_geometric_erwin.tree.slot_order import in_slot_order, with_masks
from torch_geometric_erwin.tree.storage import read_tree, write_tree
from torch_geometric_erwin.tree.structure import Structure


@dataclass(frozen=True, eq=False, repr=False)
class BallTree(Structure):
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
        axes: What nodes were split along: :obj:`"coordinate"`,
            :obj:`"principal"` or :obj:`None`.
    """
    @staticmethod
    def build(
        pos: Tensor,
        batch: Tensor | None = None,
        *,
        ball_size: int | Sequence[int] = 128,
        strides: Sequence[int] = (),
        rotations: Sequence[Rotation] = (0., 45.),
        completion: str = 'balanced',
        axes: str = 'coordinate',
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
            axes: :obj:`"coordinate"` splits each node at the median of its
                widest axis, as the paper does. :obj:`"principal"` splits it
                along the axis of its largest variance, so that the balls
                turn and mirror along with the cloud; other orientations
                are directions between this axis and that of the second
                largest variance, at their angles. Axes point to where a
                node's farther points are (third moment). What then remains
                open is decided by coordinates, so balls do not turn along
                where variances or projections are equal, as of a lattice, a
                cube or a circle, or points lie symmetrically; neither do
                children of a node of two points, so use pooling that does
                not look at their order, as that of the equivariant layers.
                Groups of points that the first pooling joins, or else
                balls, are not split on, but sorted. In a periodic cell axes
                are those of the points as they lie in the cell: balls turn
                along with the cell's own symmetries, if there are at most
                two orientations. A line has one axis, which points to
                where a cloud's farther points are; in a cell, as it is.
                (default: :obj:`"coordinate"`)
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
        return build(BallTree, pos, batch, ball_size, strides, rotations,
                     completion, axes, box, pbc, ptr)

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
        return read_tree(BallTree, data)

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
        return from_permutation(BallTree, pos, batch, index, mask, ball_size,
                                strides, rotated, virtual)

    def coarsen(self) -> 'BallTree':
        r"""Returns the next level's tree.

        Its points are groups of this level's slots, at their centres of
        mass. Differentiable in :attr:`pos`.

        Raises:
            ValueError: If this is the last level.
        """
        return coarsen(self)

    def cluster(self) -> Tensor:
        r"""Returns the point of the next level that each point is pooled
        into, shape :math:`(N)`, as PyG's pooling calls it.

        Raises:
            ValueError: If this is the last level.
        """
        return coarse_point(self, self.levels[0].inverse[0])

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
        return children(self)

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
        return with_masks(self)

    def offsets(self, partition: int | None = 0) -> Tensor:
        r"""Returns the position of each point relative to the center of mass
        of its ball (equation 9), shape :math:`(N, D)`. Differentiable in
        :attr:`pos`.

        In a periodic cell a ball consists of those images of its points that
        lay side by side when it was cut, in a frame which another
        orientation shifts. So do its center and these offsets, which sum to
        zero (times masses), also where a ball is as wide as the cell.

        Args:
            partition: The orientation; :obj:`None` for all of them, shape
                :math:`(\text{orientations}, N, D)`, in one go.
                (default: :obj:`0`)
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
        return edge_vectors(self, edge_index, edge_shift, source)

    def edges(self, edge_index: Tensor, edge_shift: Tensor | None = None,
              source: 'BallTree | None' = None) -> TreeEdges:
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
        return tree_edges(self, edge_index, edge_shift, source)

    def ball_of_point(self, level: int = 0) -> Tensor:
        r"""Returns the ball of :obj:`level` that each point lies in, shape
        :math:`(N)`.
        """
        return descend(self, level)[1] // self.levels[level].ball_size

    def centers(self, level: int = 0) -> Tensor:
        r"""Returns the centre of mass of every ball of a level (Definition
        3.2), shape :math:`(\text{balls}, D)`.

        Args:
            level: How many times the tree is coarsened.
        """
        return measure(self, level)[0]

    def radii(self, level: int = 0) -> Tensor:
        r"""Returns the distance of the farthest point of every ball of a
        level to its centre (Definition 3.2), shape :math:`(\text{balls})`.

        Args:
            level: How many times the tree is coarsened.
        """
        return radii(self, level)

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
        return balls_as_graph(self, partition, loop)

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
        return knn_graph(self, k, loop, return_shift)
