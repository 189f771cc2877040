r"""Layers that keep the points."""

from torch_geometric_erwin.nn.conv.bessel_basis import BesselBasis
from torch_geometric_erwin.nn.conv.erwin_block import ErwinBlock
from torch_geometric_erwin.nn.conv.erwin_conv import ErwinConv
from torch_geometric_erwin.nn.conv.erwin_gps_conv import ErwinGPSConv
from torch_geometric_erwin.nn.conv.mpnn_conv import MPNNConv
from torch_geometric_erwin.nn.conv.swiglu import SwiGLU

__all__ = [
    'BesselBasis',
    'ErwinBlock',
    'ErwinConv',
    'ErwinGPSConv',
    'MPNNConv',
    'SwiGLU',
]
