r"""Ball trees in PyG's GraphGym: importing this module registers layers, a
node encoder, a pooling, a configuration group and a loader.
"""

try:
    import yacs.config  # noqa: F401
except ImportError as error:
    raise ImportError(
        "'torch_geometric_erwin.graphgym' needs 'yacs', as PyG's GraphGym "
        "does: pip install 'torch_geometric_erwin[graphgym]'") from error

from torch_geometric_erwin.graphgym.config import set_cfg_erwin
from torch_geometric_erwin.graphgym.encoder import BallTreeEncoder
from torch_geometric_erwin.graphgym.forward_pass import ball_tree
from torch_geometric_erwin.graphgym.layer import (
    ErwinConvLayer,
    ErwinGPSConvLayer,
    HybridErwinConvLayer,
)
from torch_geometric_erwin.graphgym.loader import load_erwin
from torch_geometric_erwin.graphgym.pooling import ball_pooling

__all__ = [
    'BallTreeEncoder',
    'ErwinConvLayer',
    'ErwinGPSConvLayer',
    'HybridErwinConvLayer',
    'ball_pooling',
    'ball_tree',
    'load_erwin',
    'set_cfg_erwin',
]
