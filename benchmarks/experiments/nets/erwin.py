from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch

from benchmarks.experiments.nets.ablation import Attention, restrict
from torch_geometric_erwin import ErwinTransformer


class Erwin(torch.nn.Module):
    r"""The :class:`~torch_geometric_erwin.ErwinTransformer`, on trees that it
    builds from the positions of a batch.

    Each point is normalized on its own, so that clouds do not depend on the
    batch they are in.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (list[int]): Size of each hidden sample, one for each
            level.
        out_channels (int): Size of each output sample.
        depths (list[int], optional): Number of blocks at each level.
            (default: :obj:`[2, 2]`)
        heads (list[int], optional): Number of attention heads at each level.
            (default: :obj:`[4, 8]`)
        ball_sizes (list[int], optional): Number of slots of a ball at each
            level. (default: :obj:`[128, 128]`)
        strides (list[int], optional): How many slots make a point of the
            next level. (default: :obj:`[4]`)
        k (int, optional): Number of neighbors in the embedding.
            (default: :obj:`12`)
        mp_steps (int, optional): Number of steps of message passing in the
            embedding. (default: :obj:`3`)
        mlp_ratio (int, optional): Hidden size of the feed-forward networks,
            in units of their input. (default: :obj:`4`)
        dropout (float, optional): Dropout probability in the blocks.
            (default: :obj:`0.`)
        dim (int, optional): Number of dimensions of the positions.
            (default: :obj:`3`)
        rotations (list[float], optional): The orientations of the tree, in
            degrees, that blocks take in turn. (default: :obj:`[0., 45.]`)
        mesh (bool, optional): If set to :obj:`True`, messages in the
            embedding run on the edges of clouds in place of those to nearest
            neighbors. (default: :obj:`False`)
        attention (str, optional): What attention depends on; see
            :func:`~benchmarks.experiments.nets.ablation.restrict`.
            (default: :obj:`"content"`)
        relative_positions (bool, optional): See there.
            (default: :obj:`True`)
    """
    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        out_channels: int,
        depths: Sequence[int] = (2, 2),
        heads: Sequence[int] = (4, 8),
        ball_sizes: Sequence[int] = (128, 128),
        strides: Sequence[int] = (4, ),
        k: int = 12,
        mp_steps: int = 3,
        mlp_ratio: int = 4,
        dropout: float = 0.,
        dim: int = 3,
        rotations: Sequence[float] = (0., 45.),
        mesh: bool = False,
        attention: Attention = 'content',
        relative_positions: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.mesh = mesh
        self.model = ErwinTransformer(
            in_channels, hidden_channels, out_channels, depths=depths,
            heads=heads, ball_sizes=ball_sizes, strides=strides, k=k,
            mp_steps=mp_steps, mlp_ratio=mlp_ratio, dropout=dropout, dim=dim,
            rotations=rotations, norm='layer_norm',
            norm_kwargs={'mode': 'node'})
        restrict(self, attention, relative_positions)

    def forward(self, data: Batch) -> Tensor:
        box = data.box if 'box' in data else None
        tree = self.model.build_tree(data.pos, ptr=data.ptr, box=box)
        return self.model(data.x, tree,
                          data.edge_index if self.mesh else None)
