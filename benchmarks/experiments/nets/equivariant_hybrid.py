from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Linear, ModuleList
from torch_geometric.data import Batch

from benchmarks.experiments.nets.mpnn import readout
from torch_geometric_erwin import (
    BallTree,
    EquivariantBallPooling,
    EquivariantBallUnpooling,
    EquivariantErwinConv,
    EquivariantMPNNConv,
)
from torch_geometric_erwin.tree import TreeEdges

Pair = tuple[Tensor, Tensor]


class EquivariantHybrid(torch.nn.Module):
    r"""The :class:`Hybrid` on scalars and vectors, which turn along with the
    positions, on a ball tree that does so, too.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (list[int]): Size of each hidden sample, of scalars
            and of vectors, one for each level.
        out_channels (int): Size of each output sample: the number of
            dimensions for a vector, :obj:`1` for a scalar.
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
        k (int, optional): Number of neighbors. (default: :obj:`16`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
    """
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
        k: int = 16,
        dim: int = 3,
    ) -> None:
        super().__init__()
        if out_channels not in (1, dim):
            raise ValueError(f"Expected 'out_channels' to be 1, for a scalar, "
                             f"or {dim}, for a vector (got {out_channels})")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.ball_sizes = list(ball_sizes)
        self.strides = list(strides)

        def stages(steps: Sequence[int], depths: Sequence[int]) -> ModuleList:
            channels = hidden_channels[:len(steps)]
            return ModuleList(
                Stage(*args, mlp_ratio, k, dim) for args in zip(
                    channels, steps, depths, heads[:len(steps)], strict=True))

        pool = {'dim': dim, 'norm': 'layer_norm',
                'norm_kwargs': {'mode': 'node'}}
        levels = list(zip(hidden_channels[:-1], hidden_channels[1:], strides,
                          strict=True))
        self.lin = Linear(in_channels, hidden_channels[0])
        self.encoder = stages(mp_steps, depths)
        self.pools = ModuleList(
            EquivariantBallPooling(fine, coarse, stride, **pool)
            for fine, coarse, stride in levels)
        self.unpools = ModuleList(
            EquivariantBallUnpooling(coarse, fine, stride, **pool)
            for fine, coarse, stride in levels)
        self.decoder = stages(decoder_mp_steps, decoder_depths)
        first = hidden_channels[0]
        self.mlp = readout(first, first if out_channels > 1 else 1)
        self.lin_vec = Linear(first, 1, bias=False)

    def forward(self, data: Batch) -> Tensor:
        box = data.box if 'box' in data else None
        tree = BallTree.build(data.pos, data.batch, ptr=data.ptr, box=box,
                              ball_size=self.ball_sizes, strides=self.strides,
                              axes='principal')
        # From here on, points lie in memory as they do in balls.
        tree, index, inverse = tree.in_slot_order()
        x = self.lin(data.x[index])
        vec, skips = x.new_zeros(len(x), tree.pos.size(1), x.size(1)), []
        for stage, pool in zip(self.encoder, self.pools, strict=False):
            (x, vec), edges = stage(x, vec, tree)
            skips.append((x, vec, tree, edges))
            x, vec, tree = pool(x, vec, tree)
        (x, vec), _ = self.encoder[-1](x, vec, tree)
        for i in reversed(range(len(skips))):
            *skip, fine, edges = skips[i]
            x, vec = self.unpools[i](x, vec, tree, *skip, fine)
            (x, vec), _ = self.decoder[i](x, vec, fine, edges)
            tree = fine
        out = self.mlp(x)
        if self.out_channels > 1:
            out = self.lin_vec(vec * out.unsqueeze(1)).squeeze(2)
        return out[inverse]


class Stage(torch.nn.Module):
    r"""What happens at one level: message passing, then attention."""
    def __init__(self, channels: int, mp_steps: int, depth: int, heads: int,
                 mlp_ratio: int, k: int, dim: int) -> None:
        super().__init__()
        self.k = k
        self.convs = ModuleList(
            EquivariantMPNNConv(channels, dim=dim) for _ in range(mp_steps))
        self.attn = EquivariantErwinConv(channels, channels, heads, dim=dim,
                                         depth=depth, mlp_ratio=mlp_ratio)

    def forward(self, x: Tensor, vec: Tensor, tree: BallTree,
                edges: TreeEdges | None = None) -> tuple[Pair, TreeEdges]:
        if edges is None:
            edges = tree.edges(tree.knn_graph(self.k))
        for conv in self.convs:
            x, vec = conv(x, vec, tree, edges)
        return self.attn(x, vec, tree), edges
