from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from torch_geometric_erwin.datasets.drawn import DrawnDataset, expect

NUM_PATTERNS, PATTERN_SIZE, VOCABULARY = 100, 20, 3


class SBMClustering(DrawnDataset):
    r"""Graphs of the stochastic block model whose nodes are to be told apart,
    drawn as in the `"Benchmarking Graph Neural Networks"
    <https://arxiv.org/abs/2003.00982>`_ paper; PyG's
    :class:`~torch_geometric.datasets.GNNBenchmarkDataset` downloads the
    authors' own.

    :obj:`"CLUSTER"`: six communities of 5 to 35 nodes, connected with a
    probability of 0.55 within and 0.25 between them. One node of each says
    which it is, :obj:`x` from one to six; that of all others is zero. The
    target of a node is its community, :obj:`y` from zero to five.

    :obj:`"PATTERN"`: five communities of 5 to 35 nodes (0.5 within, 0.35
    between them), and one of 100 patterns of 20 nodes, connected with a
    probability of 0.5 among each other and to any other node. Features
    :obj:`x` are drawn from zero, one and two. The target of a node is whether
    it belongs to the pattern, :obj:`y`.

    Shapes are :math:`(N, 1)` for the categories :obj:`x` and :math:`(N)` for
    :obj:`y`. The score of the paper is the mean over classes of the accuracy
    within each.

    Args:
        root (str): Where to keep the graphs.
        name (str): :obj:`"CLUSTER"` or :obj:`"PATTERN"`.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.
            (default: :obj:`"train"`)
        num_graphs (int, optional): Number of graphs. (default: :obj:`1000`)
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
        ValueError: If an argument makes no such graphs, or
            :obj:`pre_transform` or :obj:`pre_filter` cannot be told from
            others of its kind.
    """
    names = ('CLUSTER', 'PATTERN')

    def __init__(
        self,
        root: str,
        name: str,
        split: str = 'train',
        num_graphs: int = 1000,
        seed: int = 0,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        expect(name in self.names, 'name', f'one of {self.names}', name)
        expect(num_graphs > 0, 'num_graphs', 'positive', num_graphs)
        self.name = name
        super().__init__(root, split, num_graphs, seed, transform,
                         pre_transform, pre_filter, force_reload)

    def facts(self) -> tuple:
        return ('SBMClustering', self.name)

    def make(self, i: int) -> Data:
        rng = self.generator(i)
        data = (make_cluster(rng) if self.name == 'CLUSTER' else
                make_pattern(rng, self.seed))
        return shuffled(data, rng)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.name!r}, {len(self)}, '
                f'split={self.split!r})')


def make_cluster(rng: Generator) -> Data:
    block = draw_blocks(6, rng)
    x = torch.zeros(len(block), 1, dtype=torch.long)
    first = torch.searchsorted(block, torch.arange(6))  # nodes are alike
    x[first, 0] = torch.arange(1, 7)
    chance = torch.where(block[:, None] == block, 0.55, 0.25)
    return Data(x=x, edge_index=draw_edges(chance, rng), y=block)


def make_pattern(rng: Generator, seed: int) -> Data:
    block = draw_blocks(5, rng)
    chance = torch.where(block[:, None] == block, 0.5, 0.35)
    outside, number = draw_edges(chance, rng), len(block)
    x = torch.randint(VOCABULARY, (number, 1), generator=rng)

    # Patterns are the same in all splits.
    which = int(torch.randint(NUM_PATTERNS, (), generator=rng))
    fixed = Generator().manual_seed(NUM_PATTERNS * seed + which)
    pattern = torch.randint(VOCABULARY, (PATTERN_SIZE, 1), generator=fixed)
    inside = draw_edges(torch.full((PATTERN_SIZE, PATTERN_SIZE), 0.5), fixed)
    between = (torch.rand(PATTERN_SIZE, number, generator=rng) <
               0.5).nonzero().t() + torch.tensor([[number], [0]])
    edges = torch.cat([outside, inside + number, between], dim=1)
    y = (torch.arange(number + PATTERN_SIZE) >= number).long()
    return Data(x=torch.cat([x, pattern]), y=y,
                edge_index=to_undirected(edges, num_nodes=len(y)))


def draw_blocks(number: int, rng: Generator) -> Tensor:
    r"""Returns which block each node belongs to, one after the other."""
    sizes = torch.randint(5, 36, (number, ), generator=rng)
    return torch.arange(number).repeat_interleave(sizes)


def draw_edges(chance: Tensor, rng: Generator) -> Tensor:
    r"""Connects each pair of nodes with its probability, both ways."""
    drawn = torch.rand(chance.shape, generator=rng) < chance
    edges = drawn.triu(1).nonzero().t()
    return to_undirected(edges, num_nodes=len(chance))


def shuffled(data: Data, rng: Generator) -> Data:
    r"""Numbers the nodes anew: their order tells the targets."""
    order = torch.randperm(len(data.y), generator=rng)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    edges = to_undirected(rank[data.edge_index], num_nodes=len(order))
    return Data(x=data.x[order], edge_index=edges, y=data.y[order])
