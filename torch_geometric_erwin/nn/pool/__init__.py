r"""Pooling along the ball tree, and back."""

from torch_geometric_erwin.nn.pool.ball_pooling import BallPooling
from torch_geometric_erwin.nn.pool.ball_unpooling import BallUnpooling

__all__ = ['BallPooling', 'BallUnpooling']
