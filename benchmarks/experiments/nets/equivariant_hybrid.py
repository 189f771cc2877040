from typing import Any

from torch import Tensor
from torch.nn import Linear

from benchmarks.experiments.nets.hybrid import Features, Hybrid
from benchmarks.experiments.nets.mpnn import readout
from torch_geometric_erwin import (
    BallTree,
    EquivariantBallPooling,
    EquivariantBallUnpooling,
    EquivariantErwinConv,
    EquivariantMPNNConv,
)


class EquivariantHybrid(Hybrid):
    r"""The :class:`Hybrid` on scalars and vectors, which turn along with the
    positions, on a ball tree that does so, too. Its arguments are the same;
    :obj:`out_channels` is the number of dimensions for a vector, and :obj:`1`
    for a scalar.
    """
    LAYERS = (EquivariantMPNNConv, EquivariantErwinConv,
              EquivariantBallPooling, EquivariantBallUnpooling)
    AXES = 'principal'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        dim = self.encoder[0].attn.dim
        if self.out_channels not in (1, dim):
            raise ValueError(f"Expected 'out_channels' to be 1, for a scalar, "
                             f"or {dim}, for a vector (got "
                             f"{self.out_channels})")

    def _make_readout(self, in_channels: int, out_channels: int) -> None:
        self.mlp = readout(in_channels, in_channels if out_channels > 1 else 1)
        self.lin_vec = Linear(in_channels, 1, bias=False)

    def _embed(self, x: Tensor, tree: BallTree) -> Features:
        x = self.lin(x)
        return x, x.new_zeros(len(x), tree.pos.size(1), x.size(1))

    def _read(self, *features: Tensor) -> Tensor:
        x, vec = features
        out = self.mlp(x)
        if self.out_channels == 1:
            return out
        return self.lin_vec(vec * out.unsqueeze(1)).squeeze(2)
