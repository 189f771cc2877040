from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, ModuleList
from torch_geometric.data import Batch

from benchmarks.experiments.nets.ablation import Attention, restrict
from benchmarks.experiments.nets.mpnn import readout
from benchmarks.experiments.nets.transolver import TransolverBlock
from torch_geometric_erwin import (
    BallPooling,
    BallTree,
    BallUnpooling,
    ErwinConv,
)
from torch_geometric_erwin.nn import MPNNConv
from torch_geometric_erwin.tree import TreeEdges

# Features of points: scalars, or scalars and vectors.
Features = tuple[Tensor, ...]


class Hybrid(torch.nn.Module):
    r"""Message passing and ball attention at every level of a ball tree.

    On the way to the coarsest level, and back,
    :class:`~torch_geometric_erwin.nn.MPNNConv` layers on the nearest
    neighbors of the level's points are followed by
    :class:`~torch_geometric_erwin.ErwinConv` blocks. Neighbors of coarse
    points are far apart, so a few layers see the whole cloud, and since
    messages carry relative positions to nearest images, across the borders
    of a periodic box. In training, trees are cut in directions drawn anew
    each time.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (list[int]): Size of each hidden sample, one for each
            level.
        out_channels (int): Size of each output sample.
        mp_steps (list[int], optional): Number of message-passing layers at
            each level. (default: :obj:`(1, 2, 2)`)
        depths (list[int], optional): Number of blocks at each level.
            (default: :obj:`(0, 1, 0)`)
        heads (list[int], optional): Number of attention heads at each level.
            (default: :obj:`(2, 4, 4)`)
        ball_sizes (list[int], optional): Number of slots of a ball at each
            level. (default: :obj:`(64, 64, 64)`)
        strides (list[int], optional): How many slots make a point of the
            next level. (default: :obj:`(8, 8)`)
        decoder_mp_steps (list[int], optional): Number of message-passing
            layers on the way back, finest level first.
            (default: :obj:`(1, 1)`)
        decoder_depths (list[int], optional): Number of blocks on the way
            back. (default: :obj:`(0, 0)`)
        mlp_ratio (int, optional): Hidden size of the blocks' feed-forward
            networks, in units of their input. (default: :obj:`2`)
        k (int or list[int], optional): Number of neighbors, at all levels or
            at each. (default: :obj:`16`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        attention (str, optional): What attention depends on; see
            :func:`~benchmarks.experiments.nets.ablation.restrict`.
            (default: :obj:`"content"`)
        num_slices (int, optional): Where there are blocks, they are followed
            by attention among all points of a cloud by so many tokens of a
            head, as in :class:`Transolver`. (default: :obj:`0`, by none)
    """
    LAYERS: tuple[Any, ...] = MPNNConv, ErwinConv, BallPooling, BallUnpooling
    AXES = 'coordinate'

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        out_channels: int,
        mp_steps: Sequence[int] = (1, 2, 2),
        depths: Sequence[int] = (0, 1, 0),
        heads: Sequence[int] = (2, 4, 4),
        ball_sizes: Sequence[int] = (64, 64, 64),
        strides: Sequence[int] = (8, 8),
        decoder_mp_steps: Sequence[int] = (1, 1),
        decoder_depths: Sequence[int] = (0, 0),
        mlp_ratio: int = 2,
        k: int | Sequence[int] = 16,
        dim: int = 3,
        attention: Attention = 'content',
        num_slices: int = 0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.ball_sizes = list(ball_sizes)
        self.strides = list(strides)
        if num_slices and self.LAYERS is not Hybrid.LAYERS:
            raise ValueError(f"Expected 'num_slices' to be 0 for what has "
                             f"vectors (got {num_slices})")
        mpnn, blocks, pooling, unpooling = self.LAYERS
        if isinstance(k, int):
            k = [k] * len(hidden_channels)

        def stages(steps: Sequence[int], depths: Sequence[int]) -> ModuleList:
            channels = hidden_channels[:len(steps)]
            return ModuleList(
                Stage(mpnn, blocks, *args, mlp_ratio, dim, num_slices)
                for args in zip(channels, steps, depths, heads[:len(steps)],
                                k[:len(steps)], strict=True))

        pool = {'dim': dim, 'norm': 'layer_norm',
                'norm_kwargs': {'mode': 'node'}}
        levels = list(zip(hidden_channels[:-1], hidden_channels[1:], strides,
                          strict=True))
        self.lin = Linear(in_channels, hidden_channels[0])
        self.encoder = stages(mp_steps, depths)
        self.pools = ModuleList(
            pooling(fine, coarse, stride, **pool)
            for fine, coarse, stride in levels)
        self.unpools = ModuleList(
            unpooling(coarse, fine, stride, **pool)
            for fine, coarse, stride in levels)
        self.decoder = stages(decoder_mp_steps, decoder_depths)
        self._make_readout(hidden_channels[0], out_channels)
        restrict(self, attention)

    def _make_readout(self, in_channels: int, out_channels: int) -> None:
        self.mlp = readout(in_channels, out_channels)

    def _embed(self, x: Tensor, tree: BallTree) -> Features:
        return self.lin(x),

    def _read(self, *features: Tensor) -> Tensor:
        return self.mlp(*features)

    def _draw_rotations(self) -> tuple[float, float]:
        r"""In training, no tree is cut twice in the same directions, lest a
        net learn by heart which points of few clouds share a ball.
        """
        turn = 90. * torch.rand(()).item() - 45. if self.training else 0.
        return turn, turn + 45.

    def forward(self, data: Batch) -> Tensor:
        box = data.box if 'box' in data else None
        tree = BallTree.build(data.pos, data.batch, ptr=data.ptr, box=box,
                              ball_size=self.ball_sizes, strides=self.strides,
                              rotations=self._draw_rotations(),
                              axes=self.AXES)
        # From here on, points lie in memory as they do in balls.
        tree, index, inverse = tree.in_slot_order()
        features, skips = self._embed(data.x[index], tree), []
        for stage, pool in zip(self.encoder, self.pools, strict=False):
            features, edges = stage(features, tree)
            skips.append((features, tree, edges))
            *coarse, tree = pool(*features, tree)
            features = tuple(coarse)
        features, _ = self.encoder[-1](features, tree)
        for i in reversed(range(len(skips))):
            skip, fine, edges = skips[i]
            features = several(self.unpools[i](*features, tree, *skip, fine))
            features, _ = self.decoder[i](features, fine, edges)
            tree = fine
        return self._read(*features)[inverse]


class Stage(torch.nn.Module):
    r"""What happens at one level: message passing, then attention."""
    def __init__(self, mpnn: Any, blocks: Any, channels: int, mp_steps: int,
                 depth: int, heads: int, k: int, mlp_ratio: int, dim: int,
                 num_slices: int) -> None:
        super().__init__()
        self.k = k
        self.convs = ModuleList(
            mpnn(channels, dim=dim) for _ in range(mp_steps))
        self.attn = blocks(channels, channels, heads, dim=dim, depth=depth,
                           mlp_ratio=mlp_ratio)
        self.attn_all = ModuleList(
            TransolverBlock(channels, heads, num_slices, mlp_ratio)
            for _ in range(num_slices and depth))

    def forward(self, features: Features, tree: BallTree,
                edges: TreeEdges | None = None) -> tuple[Features, TreeEdges]:
        if edges is None:
            edges = tree.edges(tree.knn_graph(self.k))
        for conv in self.convs:
            features = several(conv(*features, tree=tree, edge_index=edges))
        features = several(self.attn(*features, tree))
        sizes = tree.ptr.diff().tolist() if len(self.attn_all) else []
        for block in self.attn_all:
            features = block(*features, sizes),
        return features, edges


def several(out: Tensor | Features) -> Features:
    return (out, ) if isinstance(out, Tensor) else out
