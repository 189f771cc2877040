from typing import Any

from torch_geometric.graphgym.config import cfg
from torch_geometric.graphgym.register import register_config
from yacs.config import CfgNode


@register_config('erwin')
def set_cfg_erwin(cfg: CfgNode) -> None:
    r"""Adds the group :obj:`cfg.erwin` (registered as :obj:`erwin`):

    - :obj:`ball_size`, :obj:`strides`, :obj:`rotations`,
      :obj:`completion`: the tree, as
      :meth:`~torch_geometric_erwin.BallTree.build` takes them. Layers use
      its finest level; with :obj:`strides`, pooling takes the balls of the
      coarsest. (default: :obj:`128`, :obj:`[]`, :obj:`[0., 45.]`,
      :obj:`"balanced"`)
    - :obj:`pos`: where positions come from, with the loader :obj:`Erwin`:
      :obj:`"pos"` for those of the data, :obj:`"laplacian"` or
      :obj:`"random_walk"` for positions from the graph.
      (default: :obj:`"pos"`)
    - :obj:`dim`: their number of dimensions. (default: :obj:`3`)
    - :obj:`heads`, :obj:`depth`, :obj:`mlp_ratio`, :obj:`bias`: the layers,
      as :class:`~torch_geometric_erwin.nn.ErwinConv` takes them, and
      :obj:`"none"` for no bias. (default: :obj:`1`, :obj:`1`, :obj:`4`,
      :obj:`"distance"`)
    - :obj:`local`: the name of the GraphGym layer that passes messages in
      :obj:`erwin_gps_conv` and :obj:`hybrid_erwin_conv`.
      (default: :obj:`"gcnconv"`)

    Args:
        cfg (CfgNode): The configuration.
    """
    cfg.erwin = CfgNode()

    cfg.erwin.ball_size = 128
    cfg.erwin.strides = []
    cfg.erwin.rotations = [0., 45.]
    cfg.erwin.completion = 'balanced'

    cfg.erwin.pos = 'pos'
    cfg.erwin.dim = 3

    cfg.erwin.heads = 1
    cfg.erwin.depth = 1
    cfg.erwin.mlp_ratio = 4
    cfg.erwin.bias = 'distance'
    cfg.erwin.local = 'gcnconv'


def tree_options() -> dict[str, Any]:
    r"""Returns the configured arguments of :meth:`BallTree.build`."""
    names = ('ball_size', 'strides', 'rotations', 'completion')
    return {name: cfg.erwin[name] for name in names}


def attention_options() -> dict[str, Any]:
    r"""Returns the configured arguments that all layers share."""
    bias = None if cfg.erwin.bias == 'none' else cfg.erwin.bias
    return {'heads': cfg.erwin.heads, 'dim': cfg.erwin.dim, 'bias': bias}


# GraphGym sets defaults when it is imported, which was before this group was
# registered.
if 'erwin' not in cfg:
    set_cfg_erwin(cfg)
