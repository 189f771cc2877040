r"""Attention layers."""

from torch_geometric_erwin.nn.attention.ball_attention import BallAttention
from torch_geometric_erwin.nn.attention.equivariant_ball_attention import (
    EquivariantBallAttention,
)

__all__ = ['BallAttention', 'EquivariantBallAttention']
