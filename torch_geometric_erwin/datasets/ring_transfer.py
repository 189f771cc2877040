from collections.abc import Callable

import torch
from torch_geometric.data import Data

from torch_geometric_erwin.datasets.drawn import DrawnDataset, expect


class RingTransfer(DrawnDataset):
    r"""Rings on which one node has to tell what the node opposite to it
    says, from the `"Weisfeiler and Lehman Go Cellular: CW Networks"
    <https://arxiv.org/abs/2106.12575>`_ paper, and for each length of its
    own as in the `"On Over-Squashing in Message Passing Neural Networks: The
    Impact of Width, Depth, and Topology"
    <https://arxiv.org/abs/2302.02941>`_ paper.

    Each graph has :obj:`x` of shape :math:`(N, C)`: the code of a class (one
    one) at the source, zeros at the target, :math:`\lfloor N / 2 \rfloor`
    hops away, and ones elsewhere. The class is what the target is to tell:
    :obj:`y` of shape :math:`(N)`, of which only the target counts,
    :obj:`mask` of shape :math:`(N)`. Message passing needs as many layers as
    there are hops; with fewer, none can do better than chance,
    :math:`1 / C`. Sources are anywhere, so the numbers of nodes tell nothing.

    Args:
        root (str): Where to keep the graphs.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.
            (default: :obj:`"train"`)
        num_graphs (int, optional): Number of rings. (default: :obj:`1000`)
        num_nodes (int, optional): Number of nodes of each, :math:`N`.
            (default: :obj:`10`)
        num_classes (int, optional): Number of classes, :math:`C`.
            (default: :obj:`5`)
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
        ValueError: If an argument makes no such rings, or
            :obj:`pre_transform` or :obj:`pre_filter` cannot be told from
            others of its kind.
    """
    def __init__(
        self,
        root: str,
        split: str = 'train',
        num_graphs: int = 1000,
        num_nodes: int = 10,
        num_classes: int = 5,
        seed: int = 0,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        expect(num_graphs > 0, 'num_graphs', 'positive', num_graphs)
        expect(num_nodes > 2, 'num_nodes', 'at least 3', num_nodes)
        expect(num_classes > 1, 'num_classes', 'at least 2', num_classes)
        self.ring = (num_nodes, num_classes)
        super().__init__(root, split, num_graphs, seed, transform,
                         pre_transform, pre_filter, force_reload)

    def facts(self) -> tuple:
        return ('RingTransfer', *self.ring)

    def make(self, i: int) -> Data:
        num_nodes, num_classes = self.ring
        rng = self.generator(i)
        source = int(torch.randint(num_nodes, (), generator=rng))
        label = int(torch.randint(num_classes, (), generator=rng))
        target = (source + num_nodes // 2) % num_nodes

        node = torch.arange(num_nodes)
        after = torch.stack([node, (node + 1) % num_nodes])
        x = torch.ones(num_nodes, num_classes)
        x[[source, target]] = 0.
        x[source, label] = 1.
        return Data(x=x, y=torch.full((num_nodes, ), label),
                    edge_index=torch.cat([after, after.flip(0)], dim=1),
                    mask=node == target)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)}, '
                f'split={self.split!r}, num_nodes={self.ring[0]})')
