r"""Layers and models on ball trees."""

from torch_geometric_erwin.nn.attention import (
    BallAttention,
    EquivariantBallAttention,
)
from torch_geometric_erwin.nn.conv import (
    BesselBasis,
    EquivariantErwinBlock,
    EquivariantErwinConv,
    EquivariantMPNNConv,
    EquivariantSwiGLU,
    ErwinBlock,
    ErwinConv,
    ErwinGPSConv,
    MPNNConv,
    SwiGLU,
)
from torch_geometric_erwin.nn.models import (
    EquivariantErwinEmbedding,
    EquivariantErwinTransformer,
    ErwinEmbedding,
    ErwinTransformer,
    FrameAveraging,
)
from torch_geometric_erwin.nn.pool import (
    BallPooling,
    BallUnpooling,
    EquivariantBallPooling,
    EquivariantBallUnpooling,
)

__all__ = [
    'BallAttention',
    'BallPooling',
    'BallUnpooling',
    'BesselBasis',
    'EquivariantBallAttention',
    'EquivariantBallPooling',
    'EquivariantBallUnpooling',
    'EquivariantErwinBlock',
    'EquivariantErwinConv',
    'EquivariantErwinEmbedding',
    'EquivariantErwinTransformer',
    'EquivariantMPNNConv',
    'EquivariantSwiGLU',
    'ErwinBlock',
    'ErwinConv',
    'ErwinEmbedding',
    'ErwinGPSConv',
    'ErwinTransformer',
    'FrameAveraging',
    'MPNNConv',
    'SwiGLU',
]
