from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from torch_geometric_erwin.tree import BallTree


@functional_transform('add_ball_tree')
class AddBallTree(BaseTransform):
    r"""Builds the ball tree of the points :obj:`data.pos` and stores it in
    :obj:`data` as plain tensors (functional name: :obj:`add_ball_tree`).
    Graphs without positions get some from :class:`AddLaplacianPos` or
    :class:`AddRandomWalkPos`.

    As the transform of a dataset it runs once per cloud, in the workers of a
    data loader; :meth:`torch_geometric_erwin.BallTree.from_data` reads the
    tree of a whole batch. Put it after transforms that reorder, add or drop
    points, which reading the tree otherwise refuses. Moving points later
    keeps the balls, which may then be less compact.

    Args:
        ball_size (int or list[int], optional): The number of slots of a
            ball, a power of two, or one number per level.
            (default: :obj:`128`)
        strides (list[int], optional): How many slots make a point of the
            next level. (default: :obj:`()`)
        rotations (list[float], optional): The orientations, as angles in
            degrees or matrices; see
            :meth:`torch_geometric_erwin.BallTree.build`.
            (default: :obj:`(0., 45.)`)
        completion (str, optional): :obj:`"balanced"` or :obj:`"perfect"`.
            (default: :obj:`"balanced"`)
        box (torch.Tensor or float or str, optional): The periodic cell, its
            edges or vectors, or the name of the attribute that holds it; see
            :meth:`torch_geometric_erwin.BallTree.build`.
            (default: :obj:`None`)
        node_types (list[str], optional): For a
            :class:`~torch_geometric.data.HeteroData`, the node types to
            build a tree for. (default: all that have positions)
        attr (str, optional): The name of the attribute that holds the
            positions; the tree remembers it. (default: :obj:`"pos"`)
        pbc (torch.Tensor or list[bool] or str, optional): Which directions
            are periodic, or the name of the attribute that tells.
            (default: :obj:`None`, all)
        axes (str, optional): :obj:`"coordinate"`, or :obj:`"principal"` for
            balls that turn along with the cloud.
            (default: :obj:`"coordinate"`)
    """
    def __init__(
        self,
        ball_size: int | Sequence[int] = 128,
        strides: Sequence[int] = (),
        rotations: Sequence[Any] = (0., 45.),
        completion: str = 'balanced',
        box: Tensor | Sequence[float] | float | str | None = None,
        node_types: Sequence[str] | None = None,
        attr: str = 'pos',
        pbc: Tensor | Sequence[bool] | bool | str | None = None,
        axes: str = 'coordinate',
    ) -> None:
        self.ball_size = ball_size
        self.strides = tuple(strides)
        self.rotations = tuple(rotations)
        self.completion = completion
        self.box = box
        self.node_types = node_types
        self.attr = attr
        self.pbc = pbc
        self.axes = axes

    def forward(self, data: Data | HeteroData) -> Data | HeteroData:
        for store in stores_with_pos(data, self.node_types, self.attr):
            tree = BallTree.build(
                store[self.attr],
                store.batch if 'batch' in store else None,
                ptr=store.ptr if 'ptr' in store else None,
                ball_size=self.ball_size,
                strides=self.strides,
                rotations=self.rotations,
                completion=self.completion,
                axes=self.axes,
                box=find_value(store, data, self.box),
                pbc=find_value(store, data, self.pbc),
            )
            tree.to_data(store, self.attr)
        return data

    def __repr__(self) -> str:
        options = {'strides': (), 'completion': 'balanced', 'box': None,
                   'node_types': None, 'attr': 'pos', 'pbc': None,
                   'axes': 'coordinate'}
        return describe(self, {
            'ball_size': self.ball_size, 'rotations': self.rotations}, options)


def describe(transform: BaseTransform, shown: dict[str, Any],
             options: dict[str, Any]) -> str:
    r"""Prints a transform with the options that are not at their defaults:
    PyG takes those that print alike to do the same, and reuses what a dataset
    has kept.
    """
    given = {name: getattr(transform, name) for name in options}
    shown = shown | {name: value for name, value in given.items()
                     if torch.is_tensor(value) or value != options[name]}
    parts = [f'{name}={value!r}' for name, value in shown.items()]
    return f'{transform.__class__.__name__}({", ".join(parts)})'


def stores_with_pos(
    data: Data | HeteroData,
    node_types: Sequence[str] | None,
    attr: str = 'pos',
) -> list[Any]:
    r"""Returns the parts of :obj:`data` that have positions.

    Raises:
        ValueError: If there are none, or a named one has none.
    """
    if not isinstance(data, HeteroData):
        stores = [data]
    elif node_types is not None:
        stores = [data[node_type] for node_type in node_types]
    else:
        stores = [store for store in data.node_stores if attr in store]
    if not stores or any(attr not in store or store[attr] is None
                         for store in stores):
        raise ValueError(f"Expected 'data' to have positions {attr!r} (got no "
                         f"attribute of that name: 'AddLaplacianPos' and "
                         f"'AddRandomWalkPos' give positions to graphs)")
    return stores


def find_value(store: Any, data: Any, value: Any) -> Any:
    r"""Looks up a periodic cell or its directions, where their name is given.

    Raises:
        ValueError: If nothing has that name.
    """
    if not isinstance(value, str):
        return value
    for place in (store, data):
        if value in place:
            found = place[value]
            return found if torch.is_tensor(found) else torch.tensor(found)
    raise ValueError(f"Expected 'data' to have an attribute {value!r} that "
                     f"holds its periodic cell, or tells what is periodic "
                     f"(got none)")

