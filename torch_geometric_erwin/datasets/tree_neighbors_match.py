from collections.abc import Callable

import torch
from torch_geometric.data import Data

from torch_geometric_erwin.datasets.drawn import DrawnDataset, expect


class TreeNeighborsMatch(DrawnDataset):
    r"""The Tree-NeighborsMatch problem of the `"On the Bottleneck of Graph
    Neural Networks and its Practical Implications"
    <https://arxiv.org/abs/2006.05205>`_ paper: the root of a binary tree has
    to tell what the one leaf says that has as many neighbors as it has
    itself. All that the :math:`2^r` leaves say must pass through the few
    nodes around the root.

    Each graph has :obj:`x` of shape :math:`(2^{r+1} - 1, 2)`, two categories:
    a node's number of neighbors, from one to :math:`2^r`, at the leaves and
    the root, and what it says, from one to :math:`2^r`, at the leaves; zero
    elsewhere. The root comes first, and edges point towards it, as in the
    authors' code. What it is to tell is in :obj:`y` of shape :math:`(N)`, from
    zero to :math:`2^r - 1`, of which only the root counts, :obj:`mask` of
    shape :math:`(N)`. Chance is :math:`2^{-r}`. Which leaf has how many
    neighbors is drawn, too, so that its place tells nothing.

    Args:
        root (str): Where to keep the graphs.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.
            (default: :obj:`"train"`)
        num_graphs (int, optional): Number of trees. (default: :obj:`8000`)
        depth (int, optional): Number of edges from the root to a leaf,
            :math:`r`. (default: :obj:`3`)
        seed (int, optional): Another one makes other graphs.
            (default: :obj:`0`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)
        pre_transform (callable, optional): Applied before graphs are kept.
            (default: :obj:`None`)
        pre_filter (callable, optional): Whether to keep a graph.
            (default: :obj:`None`)
        force_reload (bool, optional): Whether to make kept graphs again.
            (default: :obj:`False`)

    Raises:
        ValueError: If an argument makes no such trees, or
            :obj:`pre_transform` or :obj:`pre_filter` cannot be told from
            others of its kind.
    """
    def __init__(
        self,
        root: str,
        split: str = 'train',
        num_graphs: int = 8000,
        depth: int = 3,
        seed: int = 0,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        expect(num_graphs > 0, 'num_graphs', 'positive', num_graphs)
        expect(depth > 0, 'depth', 'positive', depth)
        self.depth = depth
        super().__init__(root, split, num_graphs, seed, transform,
                         pre_transform, pre_filter, force_reload)

    def facts(self) -> tuple:
        return ('TreeNeighborsMatch', self.depth)

    def make(self, i: int) -> Data:
        leaves = 2**self.depth
        rng = self.generator(i)
        neighbors = torch.randperm(leaves, generator=rng) + 1
        says = torch.randperm(leaves, generator=rng) + 1
        wanted = int(torch.randint(leaves, (), generator=rng))

        x = torch.zeros(2 * leaves - 1, 2, dtype=torch.long)
        x[-leaves:] = torch.stack([neighbors, says], dim=1)
        x[0, 0] = neighbors[wanted]
        child = torch.arange(1, len(x))
        return Data(x=x, y=(says[wanted] - 1).repeat(len(x)),
                    edge_index=torch.stack([child, (child - 1) // 2]),
                    mask=torch.arange(len(x)) == 0)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'split={self.split!r}, depth={self.depth})')
