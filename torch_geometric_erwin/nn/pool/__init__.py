r"""Pooling along the ball tree, and back."""

from torch_geometric_erwin.nn.pool.ball_pooling import BallPooling
from torch_geometric_erwin.nn.pool.ball_unpooling import BallUnpooling
from torch_geometric_erwin.nn.pool.equivariant_ball_pooling import (
    EquivariantBallPooling,
)
from torch_geometric_erwin.nn.pool.equivariant_ball_unpooling import (
    EquivariantBallUnpooling,
)

__all__ = [
    'BallPooling',
    'BallUnpooling',
    'EquivariantBallPooling',
    'EquivariantBallUnpooling',
]
