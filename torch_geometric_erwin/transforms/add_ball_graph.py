from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from torch_geometric_erwin.transforms.add_ball_tree import (
    describe,
    find_value,
    stores_with_pos,
)
from torch_geometric_erwin.tree import knn_graph, radius_graph


@functional_transform('add_ball_graph')
class AddBallGraph(BaseTransform):
    r"""Connects the points :obj:`data.pos` to their nearest neighbors, found
    on a ball tree (functional name: :obj:`add_ball_graph`).

    Writes :obj:`edge_index`; of a
    :class:`~torch_geometric.data.HeteroData`, that of the edge type
    :obj:`(node_type, "ball", node_type)`. Give either :obj:`k` or :obj:`r`.

    Args:
        k (int, optional): The number of nearest neighbors.
            (default: :obj:`None`)
        r (float, optional): The distance within which all points are
            neighbors. (default: :obj:`None`)
        loop (bool, optional): Whether a point is its own neighbor.
            (default: :obj:`False`)
        max_num_neighbors (int, optional): With :obj:`r`, keep only so many
            nearest neighbors. (default: :obj:`None`, all of them)
        flow (str, optional): :obj:`"source_to_target"` or
            :obj:`"target_to_source"`.
            (default: :obj:`"source_to_target"`)
        box (torch.Tensor or float or str, optional): The edges or vectors
            of the periodic cell, as :func:`~torch_geometric_erwin.knn_graph`
            takes them, or the name of the attribute that holds them.
            (default: :obj:`None`)
        node_types (list[str], optional): For a
            :class:`~torch_geometric.data.HeteroData`, the node types to
            connect. (default: all that have positions)
        attr (str, optional): The name of the attribute that holds the
            positions. (default: :obj:`"pos"`)
        pbc (torch.Tensor or list[bool] or str, optional): Which directions
            are periodic, or the name of the attribute that says it.
            (default: :obj:`None`, all of a :obj:`box`)
        return_shift (bool, optional): Whether to write :obj:`edge_shift`,
            too, int64 of shape :math:`(E, D)`, so that :obj:`pos[row] +
            edge_shift @ cell - pos[col]` are the vectors of the edges,
            where :obj:`row, col = edge_index` and :obj:`cell` are the
            cell's vectors. (default: :obj:`False`)
    """
    def __init__(
        self,
        k: int | None = None,
        r: float | None = None,
        loop: bool = False,
        max_num_neighbors: int | None = None,
        flow: str = 'source_to_target',
        box: Tensor | Sequence[float] | float | str | None = None,
        node_types: Sequence[str] | None = None,
        attr: str = 'pos',
        pbc: Tensor | Sequence[Any] | bool | str | None = None,
        return_shift: bool = False,
    ) -> None:
        if (k is None) == (r is None):
            raise ValueError(f"Expected either 'k' or 'r' to be given "
                             f"(got k={k}, r={r})")
        self.k = k
        self.r = r
        self.loop = loop
        self.max_num_neighbors = max_num_neighbors
        self.flow = flow
        self.box = box
        self.node_types = node_types
        self.attr = attr
        self.pbc = pbc
        self.return_shift = return_shift

    def forward(self, data: Data | HeteroData) -> Data | HeteroData:
        for store in stores_with_pos(data, self.node_types, self.attr):
            found = self._connect(store, data)
            edges, shift = found if self.return_shift else (found, None)
            if isinstance(data, HeteroData):
                name = store._key
                target = data[name, 'ball', name]
            else:
                target = data
                data.edge_attr = None  # it belonged to other edges
            target.edge_index = edges
            if self.return_shift:
                target.edge_shift = shift
            elif 'edge_shift' in target:
                del target.edge_shift
        return data

    def _connect(self, store: Any, data: Any) -> Any:
        batch = store.batch if 'batch' in store else None
        size = len(store.ptr) - 1 if 'ptr' in store else None
        pos = store[self.attr]
        cell: dict[str, Any] = {'box': find_value(store, data, self.box),
                                'pbc': find_value(store, data, self.pbc),
                                'return_shift': self.return_shift}
        if self.k is not None:
            return knn_graph(pos, self.k, batch, self.loop, self.flow,
                             batch_size=size, **cell)
        assert self.r is not None
        return radius_graph(pos, self.r, batch, self.loop,
                            self.max_num_neighbors, self.flow,
                            batch_size=size, **cell)

    def __repr__(self) -> str:
        return describe(self, {}, {
            'k': None, 'r': None, 'loop': False, 'max_num_neighbors': None,
            'flow': 'source_to_target', 'box': None, 'node_types': None,
            'attr': 'pos', 'pbc': None, 'return_shift': False})
