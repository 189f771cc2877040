r"""Which edges lead to each target, and what comes from each source."""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from torch_geometric_erwin.ops.native import library, pointer
from torch_geometric_erwin.ops.transformed import is_plain

PARTS = 2 * (256 + 1) + 1  # numbers in `Parts` of the C++ kernel


class EdgeLists(NamedTuple):
    r"""The edges of a graph as the kernels of a device take them.

    Args:
        in_ptr: Where the edges of each target begin in :obj:`in_edges`, shape
            :math:`(N_{dst} + 1)`.
        in_edges: The edges of all targets, one target after the other, shape
            :math:`(E)`.
        out_ptr: Where each source begins in :obj:`out`, shape
            :math:`(N_{src} + 1)`.
        out: On GPUs the edges of all sources. On CPUs targets are in parts,
            which add gradients of sources to rows of their own: the rows of
            all sources. Shape :math:`(E)`, of which the beginning is in use.
        in_rows: On CPUs, for each of :obj:`in_edges`, the row of its source
            among those of the part, shape :math:`(E)`.
        parts: On CPUs, where parts and their rows begin.
        order: Targets such that those with common neighbors are near each
            other: in this order they are taken, shape :math:`(N_{dst})`;
            :obj:`None` for one after the other.
    """
    in_ptr: Tensor
    in_edges: Tensor
    out_ptr: Tensor
    out: Tensor
    in_rows: Tensor
    parts: Tensor
    order: Tensor | None

    @property
    def is_for_cpu(self) -> bool:
        r"""Whether they are what kernels on CPUs take."""
        return self.parts.size(0) > 0

    @classmethod
    def of(cls, edge_index: Tensor, num_sources: int, num_targets: int,
           order: Tensor | None = None) -> 'EdgeLists':
        r"""Lists the edges of a graph. Where targets are sorted they are not
        sorted again; on GPUs, what a sorted :class:`torch_geometric.EdgeIndex`
        remembers is used.

        Args:
            edge_index: Sources and targets, shape :math:`(2, E)`.
            num_sources: The number of sources.
            num_targets: The number of targets.
            order: See above.

        Raises:
            ValueError: If an edge begins or ends where there is no node; GPUs
                stop with an error of their own, later.
        """
        if isinstance(edge_index, EdgeIndex):
            size = num_sources, num_targets
            if (edge_index.is_sorted and edge_index.sparse_size() == size
                    and edge_index.device.type != 'cpu'):
                return cls._make((*_kept(edge_index), order))
            edge_index = edge_index.as_tensor()
        listed = _list_edges if is_plain(edge_index) else list_edges
        lists = listed(edge_index, num_sources, num_targets, order)
        return cls._make((*lists, order))


_Lists = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _kept(edge_index: EdgeIndex) -> _Lists:
    r"""Returns what it remembers, once it has computed that."""
    edge_index.validate()
    (in_ptr, _), in_edges = edge_index.get_csc()
    (out_ptr, _), out_edges = edge_index.get_csr()
    same = torch.arange(edge_index.size(1), device=edge_index.device)
    a, b, c, d = (same if x is None else x.as_subclass(Tensor).long()
                  for x in (in_ptr, in_edges, out_ptr, out_edges))
    return a, b, c, d, same[:0], same[:0]


@torch.library.custom_op('torch_geometric_erwin::list_edges', mutates_args=())
def list_edges(edge_index: Tensor, num_sources: int, num_targets: int,
               order: Tensor | None) -> _Lists:
    r"""See :meth:`EdgeLists.of`."""
    return _list_edges(edge_index, num_sources, num_targets, order)


def _list_edges(edge_index: Tensor, num_sources: int, num_targets: int,
                order: Tensor | None) -> _Lists:
    lib = library() if edge_index.device.type == 'cpu' else None
    if lib is None:
        return _by_sorting(edge_index, num_sources, num_targets)
    lists = _empty(edge_index, num_sources, num_targets, order)
    edge_index = edge_index.contiguous()
    order = None if order is None else order.contiguous()
    sizes = edge_index.size(1), num_sources, num_targets
    status = lib.tge_list_edges(
        ctypes.c_void_p(edge_index[0].data_ptr()),
        ctypes.c_void_p(edge_index[1].data_ptr()),
        ctypes.c_void_p(pointer(order)), *map(ctypes.c_int64, sizes),
        *(ctypes.c_void_p(pointer(x)) for x in lists),
        torch.get_num_threads())
    if status == 2:
        raise MemoryError(f'Not enough memory for {edge_index.size(1)} edges')
    if status == 1:
        _expect_nodes(edge_index, num_sources, num_targets)
    return lists


@list_edges.register_fake
def _empty(edge_index: Tensor, num_sources: int, num_targets: int,
           order: Tensor | None) -> _Lists:
    edges = edge_index.size(1)
    on_cpu = edge_index.device.type == 'cpu' and library() is not None
    a, b, c, d, e, f = (edge_index.new_empty(size) for size in (
        num_targets + 1, edges, num_sources + 1, edges,
        edges if on_cpu else 0, PARTS if on_cpu else 0))
    return a, b, c, d, e, f


def _by_sorting(edge_index: Tensor, num_sources: int,
                num_targets: int) -> _Lists:
    if edge_index.device.type == 'cpu':
        _expect_nodes(edge_index, num_sources, num_targets)
    else:
        source, target = edge_index
        torch._assert_async(
            ((edge_index >= 0).all(0) & (source < num_sources)
             & (target < num_targets)).all(),
            "Expected 'edge_index' to name nodes that there are")
    out: list[Tensor] = []
    for node, count in (edge_index[1], num_targets), (edge_index[0],
                                                      num_sources):
        node, order = torch.sort(node, stable=True)
        bounds = torch.arange(count + 1, device=node.device)
        out += [torch.searchsorted(node, bounds), order]
    a, b, c, d = out
    return a, b, c, d, edge_index.new_empty(0), edge_index.new_empty(0)


def _expect_nodes(edge_index: Tensor, num_sources: int,
                  num_targets: int) -> None:
    for name, node, count in (('sources', edge_index[0], num_sources),
                              ('targets', edge_index[1], num_targets)):
        odd = (node < 0) | (node >= count)
        if odd.any():
            raise ValueError(
                f"Expected the {name} in 'edge_index' to be in [0, {count}) "
                f"(got {int(node[odd][0])})")
