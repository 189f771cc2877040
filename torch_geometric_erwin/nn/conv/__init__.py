r"""Layers that keep the points."""

from torch_geometric_erwin.nn.conv.bessel_basis import BesselBasis
from torch_geometric_erwin.nn.conv.equivariant_erwin_block import (
    EquivariantErwinBlock,
)
from torch_geometric_erwin.nn.conv.equivariant_erwin_conv import (
    EquivariantErwinConv,
)
from torch_geometric_erwin.nn.conv.equivariant_mpnn_conv import (
    EquivariantMPNNConv,
)
from torch_geometric_erwin.nn.conv.equivariant_swiglu import EquivariantSwiGLU
from torch_geometric_erwin.nn.conv.erwin_block import ErwinBlock
from torch_geometric_erwin.nn.conv.erwin_conv import ErwinConv
from torch_geometric_erwin.nn.conv.erwin_gps_conv import ErwinGPSConv
from torch_geometric_erwin.nn.conv.mpnn_conv import MPNNConv
from torch_geometric_erwin.nn.conv.swiglu import SwiGLU

__all__ = [
    'BesselBasis',
    'EquivariantErwinBlock',
    'EquivariantErwinConv',
    'EquivariantMPNNConv',
    'EquivariantSwiGLU',
    'ErwinBlock',
    'ErwinConv',
    'ErwinGPSConv',
    'MPNNConv',
    'SwiGLU',
]
