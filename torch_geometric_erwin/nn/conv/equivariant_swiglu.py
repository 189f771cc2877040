import torch
from torch import Tensor
from torch.nn import Linear, RMSNorm

from torch_geometric_erwin.nn.conv.swiglu import SwiGLU
from torch_geometric_erwin.nn.vectors import reset_linear
from torch_geometric_erwin.ops.vectors import norms, unit_rms


class EquivariantSwiGLU(torch.nn.Module):
    r"""The feed-forward network of
    :class:`~torch_geometric_erwin.nn.EquivariantErwinConv`, normalizations
    and residuals included, on scalars and vectors. Lengths of vectors enter
    the scalars, and scalars multiply vectors, as in the `"Equivariant Message
    Passing for the Prediction of Tensorial Properties and Molecular Spectra"
    <https://arxiv.org/abs/2102.03150>`_ paper:

    .. math::
        \vec{\mathbf{w}} &= \mathbf{U} \, \textrm{Norm}(\vec{\mathbf{v}})

        \mathbf{h} &= \mathbf{x} + \mathbf{W} \| \vec{\mathbf{w}} \|

        \mathbf{x}^{\prime} &= \mathbf{h} + \textrm{SwiGLU}(
        \textrm{RMSNorm}(\mathbf{h}))

        \vec{\mathbf{v}}^{\prime} &= \vec{\mathbf{v}} + \mathbf{U}_o \big(
        (\mathbf{W}_g \mathbf{x}^{\prime} + \mathbf{b}_g) \odot
        \vec{\mathbf{w}} \big)

    where :math:`\textrm{Norm}` divides by the root mean square of all of a
    point's numbers, and :math:`\vec{\mathbf{w}}` has half as many channels.

    Args:
        channels (int): Size of each input and output sample.
        hidden_channels (int): Size of each hidden sample.
        dropout (float, optional): Dropout probability of hidden samples.
            (default: :obj:`0.`)

    Shapes:
        - **input:** scalars :math:`(N, C)`, vectors :math:`(N, D, C)`
        - **output:** scalars :math:`(N, C)`, vectors :math:`(N, D, C)`
    """
    def __init__(self, channels: int, hidden_channels: int,
                 dropout: float = 0.) -> None:
        super().__init__()
        half = max(channels // 2, 1)
        self.channels = channels
        self.lin_vec = Linear(channels, half, bias=False)
        self.lin_norms = Linear(half, channels, bias=False)
        self.norm = RMSNorm(channels)
        self.mlp = SwiGLU(channels, hidden_channels, dropout)
        self.lin_gate = Linear(channels, half)
        self.lin_vec_out = Linear(half, channels, bias=False)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.norm.reset_parameters()
        self.mlp.reset_parameters()
        reset_linear(self.lin_norms, self.lin_gate, self.lin_vec_out)
        torch.nn.init.xavier_uniform_(self.lin_vec.weight)
        torch.nn.init.ones_(self.lin_gate.bias)

    def forward(self, x: Tensor, vec: Tensor) -> tuple[Tensor, Tensor]:
        r"""Runs the forward pass of the module."""
        hidden = self.lin_vec(unit_rms(vec))
        x = x + self.lin_norms(norms(hidden))
        x = x + self.mlp(self.norm(x))
        gate = self.lin_gate(x).unsqueeze(1)
        return x, vec + self.lin_vec_out(gate * hidden)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.channels}, '
                f'{self.mlp.hidden_channels})')
