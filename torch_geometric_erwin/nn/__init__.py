r"""Layers and models on ball trees."""

from torch_geometric_erwin.nn.attention import BallAttention
from torch_geometric_erwin.nn.conv import (
    BesselBasis,
    ErwinBlock,
    ErwinConv,
    ErwinGPSConv,
    MPNNConv,
    SwiGLU,
)
from torch_geometric_erwin.nn.models import ErwinEmbedding, ErwinTransformer
from torch_geometric_erwin.nn.pool import BallPooling, BallUnpooling

__all__ = [
    'BallAttention',
    'BallPooling',
    'BallUnpooling',
    'BesselBasis',
    'ErwinBlock',
    'ErwinConv',
    'ErwinEmbedding',
    'ErwinGPSConv',
    'ErwinTransformer',
    'MPNNConv',
    'SwiGLU',
]
