r"""Models made of the layers."""

from torch_geometric_erwin.nn.models.equivariant_erwin_embedding import (
    EquivariantErwinEmbedding,
)
from torch_geometric_erwin.nn.models.equivariant_erwin_transformer import (
    EquivariantErwinTransformer,
)
from torch_geometric_erwin.nn.models.erwin_embedding import ErwinEmbedding
from torch_geometric_erwin.nn.models.erwin_transformer import ErwinTransformer
from torch_geometric_erwin.nn.models.frame_averaging import FrameAveraging

__all__ = [
    'EquivariantErwinEmbedding',
    'EquivariantErwinTransformer',
    'ErwinEmbedding',
    'ErwinTransformer',
    'FrameAveraging',
]
