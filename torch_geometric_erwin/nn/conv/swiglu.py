import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear


class SwiGLU(torch.nn.Module):
    r"""The feed-forward network of the `"GLU Variants Improve Transformer"
    <https://arxiv.org/abs/2002.05202>`_ paper:

    .. math::
        \mathbf{x}^{\prime} = \mathbf{W}_3 \left(
        \textrm{SiLU}(\mathbf{W}_1 \mathbf{x}) \odot \mathbf{W}_2 \mathbf{x}
        \right)

    Args:
        channels (int): Size of each input and output sample.
        hidden_channels (int): Size of each hidden sample.
        dropout (float, optional): Dropout probability of hidden samples.
            (default: :obj:`0.`)

    Shapes:
        - **input:** :math:`(*, C)`
        - **output:** :math:`(*, C)`
    """
    def __init__(self, channels: int, hidden_channels: int,
                 dropout: float = 0.) -> None:
        super().__init__()
        self.channels = channels
        self.hidden_channels = hidden_channels
        self.dropout = dropout
        self.lin_in = Linear(channels, 2 * hidden_channels)
        self.lin_out = Linear(hidden_channels, channels)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for lin in (self.lin_in, self.lin_out):
            torch.nn.init.trunc_normal_(lin.weight, std=0.02)
            torch.nn.init.zeros_(lin.bias)

    def forward(self, x: Tensor) -> Tensor:
        r"""Runs the forward pass of the module."""
        gate, x = self.lin_in(x).chunk(2, dim=-1)
        x = F.dropout(F.silu(gate) * x, self.dropout, self.training)
        return self.lin_out(x)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.channels}, '
                f'{self.hidden_channels})')
