import torch
from torch import Tensor

from torch_geometric_erwin.transforms.graph import Graph


def lay_out(axes: Tensor, graph: Graph) -> Tensor:
    r"""Centers and scales each component, and lays those of a graph side by
    side along the first axis, largest first.

    The root mean square distance from the center is one in the largest
    component, and :math:`\sqrt{m / m_{\max}}` in one of :math:`m` nodes, as
    if all had one density in the plane. The gap between neighbors is as wide
    as either is along any axis. So the widest axis of a box around several
    components is the first, along which a ball tree can part them.

    Args:
        axes: Coordinates within each component, shape :math:`(N, D)`.
        graph: The graph.

    Shapes:
        - **output:** :math:`(N, D)`
    """
    component, sizes = graph.component, graph.sizes
    owner = torch.zeros_like(sizes).scatter_(0, component, graph.batch)
    radius = _radii(sizes, owner)
    pos = _standardize(axes, component, sizes, radius)
    low, high = _extremes(pos, component, len(sizes))
    reach = torch.maximum((high - low).amax(dim=1), radius)
    order = _reading_order(graph, owner)
    width = (high - low)[order, 0]
    gap = torch.maximum(reach[order][1:], reach[order][:-1])
    end = (width + torch.cat([gap.new_zeros(len(width[:1])), gap])).cumsum(0)
    begin = torch.empty_like(end)
    begin[order] = end - width - low[order, 0]
    # The largest component of each graph stays around the origin.
    owners = owner[order]
    leader = order[torch.searchsorted(owners, owners)]
    shift = begin.clone()
    shift[order] -= begin[leader]
    pos[:, 0] += shift[component]
    return pos


def _radii(sizes: Tensor, owner: Tensor) -> Tensor:
    largest = sizes.new_zeros(int(owner.max()) + 1 if len(owner) else 0)
    largest = largest.scatter_reduce(0, owner, sizes, 'amax')
    return (sizes / largest[owner]).double().sqrt()


def _standardize(axes: Tensor, component: Tensor, sizes: Tensor,
                 radius: Tensor) -> Tensor:
    def mean(x: Tensor) -> Tensor:
        total = x.new_zeros(len(sizes), *x.shape[1:])
        return total.index_add_(0, component, x) / sizes.view(
            -1, *[1] * (x.dim() - 1))

    pos = axes - mean(axes)[component]
    spread = mean(pos.square().sum(dim=1)).sqrt()
    factor = torch.where(spread > 0, radius / spread, 0.)
    return pos * factor[component].unsqueeze(1)


def _extremes(pos: Tensor, component: Tensor,
              num_components: int) -> tuple[Tensor, Tensor]:
    index = component.unsqueeze(1).expand_as(pos)
    zeros = pos.new_zeros(num_components, pos.size(1))
    return (zeros.scatter_reduce(0, index, pos, 'amin', include_self=False),
            zeros.scatter_reduce(0, index, pos, 'amax', include_self=False))


def _reading_order(graph: Graph, owner: Tensor) -> Tensor:
    r"""Sorts the components by graph, then from large to small. Numbers that
    do not depend on the order of nodes decide between equal sizes: the
    weight, and the trace of the squared random-walk matrix.
    """
    degree, row = graph.degree, graph.row
    weight = torch.zeros(len(owner), dtype=torch.float64)
    trace = torch.zeros_like(weight).index_add_(
        0, graph.component[row],
        graph.weight**2 / (degree[row] * degree[graph.col]))
    weight.index_add_(0, graph.component, degree)
    order = torch.arange(len(owner))
    for key in (trace, weight, graph.sizes):
        largest = torch.full_like(weight, 1e-300).scatter_reduce(
            0, owner, key.double(), 'amax')
        key = (1e9 * key / largest[owner]).round()  # sums differ in order
        order = order[key[order].argsort(stable=True, descending=True)]
    return order[owner[order].argsort(stable=True)]
