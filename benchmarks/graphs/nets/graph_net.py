from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Embedding, Linear, ModuleList
from torch_geometric.data import Batch
from torch_geometric.nn import MLP
from torch_geometric.typing import OptTensor
from torch_geometric.utils import scatter

from benchmarks.graphs.data.task import Task
from torch_geometric_erwin import BallTree


@dataclass
class Graph:
    r"""What layers know beside the features of the nodes."""
    edge_index: Tensor
    edge_attr: OptTensor
    batch: Tensor
    num_graphs: int
    tree: BallTree | None


@dataclass
class Sizes:
    r"""How large the parts of a network are."""
    channels: int
    heads: int
    dim: int
    edge_channels: int | None
    dropout: float


class GraphNet(torch.nn.Module):
    r"""A stack of layers on graphs. What goes in and comes out is the same
    for all networks: an encoder of features and positions, layers
    (:meth:`make_layer`), for graphs the mean over nodes, and a network of two
    linear layers.

    It takes its sizes from a task (:meth:`build`), the number of its channels
    from the number of parameters that it is to have.

    Args:
        num_layers (int, optional): Number of layers. (default: :obj:`4`)
        budget (int, optional): About how many parameters to have.
            (default: :obj:`100_000`)
        hidden_channels (int, optional): Size of each hidden sample, in place
            of :obj:`budget`. (default: :obj:`None`)
        heads (int, optional): Number of attention heads, where there are
            any. (default: :obj:`4`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.`)
        ball_size (int, optional): Number of slots of a ball, where there are
            any. (default: :obj:`128`)

    Raises:
        ValueError: If an argument is out of range.
    """
    needs_tree = False
    takes_edges = True  # their features, that is

    def __init__(
        self,
        num_layers: int = 4,
        budget: int = 100_000,
        hidden_channels: int | None = None,
        heads: int = 4,
        dropout: float = 0.,
        ball_size: int = 128,
    ) -> None:
        super().__init__()
        for name, value in (('num_layers', num_layers), ('heads', heads)):
            if value < 1:
                raise ValueError(f"Expected '{name}' to be positive "
                                 f"(got {value})")
        self.num_layers = num_layers
        self.budget = budget
        self.hidden_channels = hidden_channels
        self.heads = heads
        self.dropout = dropout
        self.ball_size = ball_size
        self.built = False

    def make_layer(self, i: int, sizes: Sizes) -> torch.nn.Module:
        r"""Returns the :obj:`i`-th layer, called with features and a
        :class:`Graph`.
        """
        raise NotImplementedError

    def build(self, task: Task, dim: int) -> None:
        r"""Makes the layers.

        Args:
            task (Task): What to learn.
            dim (int): Number of dimensions of the positions; zero if there
                are none.

        Raises:
            ValueError: If the network needs positions and there are none, or
                if the smallest one is larger than its budget.
        """
        if self.needs_tree and dim == 0:
            raise ValueError(
                f"Expected the graphs to have positions 'pos', which the "
                f"balls of {type(self).__name__} are made of (got none); set "
                f"'data.positions', to AddLaplacianPos for instance")
        if self.built:
            return

        def fill(channels: int) -> None:
            edges = self.takes_edges and task.edge_channels is not None
            self._fill(task, Sizes(channels, self.heads, dim,
                                   channels if edges else None,
                                   self.dropout))

        fill(self.hidden_channels or closest(self, fill))
        self.built = True

    def _fill(self, task: Task, sizes: Sizes) -> None:
        channels = sizes.channels
        self.encoder = encoder(task.in_channels, channels)
        self.edge_encoder = (None if sizes.edge_channels is None else encoder(
            task.edge_channels, channels))
        self.pos_encoder = (Linear(sizes.dim, channels) if sizes.dim else
                            None)
        self.layers = ModuleList(
            self.make_layer(i, sizes) for i in range(self.num_layers))
        self.pool = task.level == 'graph'
        self.head = MLP([channels, channels, task.out_channels], norm=None)

    def forward(self, data: Batch) -> Tensor:
        x = self.encoder(data.x)
        if self.pos_encoder is not None:
            x = x + self.pos_encoder(data.pos)
        graph = self._graph(data)
        for layer in self.layers:
            x = layer(x, graph)
        if self.pool:
            x = scatter(x, graph.batch, dim_size=graph.num_graphs,
                        reduce='mean')
        return self.head(x)

    def _graph(self, data: Batch) -> Graph:
        edge_attr = None
        if self.edge_encoder is not None:
            edge_attr = self.edge_encoder(data.edge_attr)
        tree = None
        if self.needs_tree:
            tree = BallTree.build(data.pos, data.batch, ptr=data.ptr,
                                  ball_size=self.ball_size)
        return Graph(data.edge_index, edge_attr, data.batch, data.num_graphs,
                     tree)


class SumOfEmbeddings(torch.nn.Module):
    r"""Encodes categories, as OGB's encoders of atoms and bonds do."""
    def __init__(self, sizes: list[int], channels: int) -> None:
        super().__init__()
        self.embeddings = ModuleList(
            Embedding(size, channels) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        parts = [embedding(x[:, i])
                 for i, embedding in enumerate(self.embeddings)]
        return torch.stack(parts).sum(dim=0)


def encoder(in_channels: int | list[int], channels: int) -> torch.nn.Module:
    if isinstance(in_channels, int):
        return Linear(in_channels, channels)
    return SumOfEmbeddings(in_channels, channels)


def count(net: torch.nn.Module) -> int:
    r"""Returns the number of parameters."""
    return sum(param.numel() for param in net.parameters())


def closest(net: GraphNet, fill: Callable[[int], None]) -> int:
    r"""Returns the number of channels that comes closest to the budget."""
    def size(units: int) -> int:
        fill(units * net.heads)
        return count(net)

    low, high = 2, 4  # in units of heads; performers take no fewer
    if size(low) > net.budget:
        raise ValueError(f"Expected 'budget' to suffice for "
                         f"{low * net.heads} channels, which take "
                         f"{count(net):,} parameters (got {net.budget:,})")
    while size(high) < net.budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = ((middle, high) if size(middle) < net.budget else
                     (low, middle))
    above, below = size(high) - net.budget, net.budget - size(low)
    return (high if above < below else low) * net.heads
