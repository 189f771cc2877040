r"""Attention layers."""

from torch_geometric_erwin.nn.attention.ball_attention import BallAttention

__all__ = ['BallAttention']
