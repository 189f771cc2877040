import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.graphgym import register
from torch_geometric.graphgym.config import cfg
from torch_geometric.graphgym.models.layer import LayerConfig
from torch_geometric.graphgym.register import register_layer
from torch_geometric.nn import Linear

from torch_geometric_erwin.graphgym.config import (
    attention_options,
    tree_options,
)
from torch_geometric_erwin.graphgym.forward_pass import turned_tree
from torch_geometric_erwin.nn import ErwinConv, ErwinGPSConv


@register_layer('erwin_conv')
class ErwinConvLayer(torch.nn.Module):
    r""":class:`~torch_geometric_erwin.nn.ErwinConv` as a GraphGym layer
    (registered as :obj:`erwin_conv`), configured by :obj:`cfg.erwin`.

    The tree is the one that the mini-batch stores, else one that is built
    from its positions, once for all layers. Layers take its orientations in
    turn, in the order in which they see a mini-batch. As that order is kept
    with the mini-batch, give each model a mini-batch of its own.

    GraphGym initializes the weights of all linear layers of a model itself.

    Args:
        layer_config (LayerConfig): The channels.
        **kwargs (optional): Unused.

    Shapes:
        - **input:** a mini-batch with node features :math:`(N, F_{in})` and
          positions :math:`(N, D)`
        - **output:** the mini-batch with node features :math:`(N, F_{out})`
    """
    def __init__(self, layer_config: LayerConfig, **kwargs: Any) -> None:
        super().__init__()
        self.tree_options = tree_options()
        self.model = ErwinConv(layer_config.dim_in, layer_config.dim_out,
                               depth=cfg.erwin.depth,
                               mlp_ratio=cfg.erwin.mlp_ratio,
                               **attention_options())

    def forward(self, batch: Any) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            batch (torch_geometric.data.Batch): The mini-batch.

        Raises:
            ValueError: If it has no positions, or they do not fit its
                features or :obj:`cfg.erwin.dim`.
        """
        tree = turned_tree(self, batch, self.tree_options, self.model.depth)
        batch.x = self.model(batch.x, tree)
        return batch


@register_layer('erwin_gps_conv')
class ErwinGPSConvLayer(torch.nn.Module):
    r""":class:`~torch_geometric_erwin.nn.ErwinGPSConv` as a GraphGym layer
    (registered as :obj:`erwin_gps_conv`): the layer :obj:`cfg.erwin.local`
    and attention within balls side by side. If the channels differ, a linear
    layer comes first. For the tree see :class:`ErwinConvLayer`.

    Args:
        layer_config (LayerConfig): The channels.
        **kwargs (optional): Unused.

    Shapes:
        - **input:** a mini-batch with node features :math:`(N, F_{in})`,
          positions :math:`(N, D)` and what the local layer needs
        - **output:** the mini-batch with node features :math:`(N, F_{out})`
    """
    def __init__(self, layer_config: LayerConfig, **kwargs: Any) -> None:
        super().__init__()
        channels = layer_config.dim_out
        self.tree_options = tree_options()
        self.lin: Linear | None = None
        if layer_config.dim_in != channels:
            self.lin = Linear(layer_config.dim_in, channels)
        local = LocalConv(cfg.erwin.local, layer_config, channels)
        self.model = ErwinGPSConv(
            channels,
            local,
            partition=0,  # the tree turns
            act=register.act_dict[layer_config.act](),
            **attention_options())

    def forward(self, batch: Any) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            batch (torch_geometric.data.Batch): The mini-batch.

        Raises:
            ValueError: If it has no positions, or they do not fit its
                features or :obj:`cfg.erwin.dim`.
        """
        tree = turned_tree(self, batch, self.tree_options, 1)
        x = batch.x if self.lin is None else self.lin(batch.x)
        batch.x = self.model(x, batch.edge_index, tree, batch=batch)
        return batch


@register_layer('hybrid_erwin_conv')
class HybridErwinConvLayer(torch.nn.Module):
    r"""A layer of message passing, an activation, and
    :class:`~torch_geometric_erwin.nn.ErwinConv`, one after the other
    (registered as :obj:`hybrid_erwin_conv`, with the local layer
    :obj:`cfg.erwin.local`; and as :obj:`gcn_erwin_conv`, with GraphGym's
    :obj:`gcnconv`). For the tree see :class:`ErwinConvLayer`.

    Args:
        layer_config (LayerConfig): The channels and the activation.
        local (str, optional): The name of the local GraphGym layer.
            (default: :obj:`cfg.erwin.local`)
        **kwargs (optional): Unused.

    Shapes:
        - **input:** a mini-batch with node features :math:`(N, F_{in})`,
          positions :math:`(N, D)` and what the local layer needs
        - **output:** the mini-batch with node features :math:`(N, F_{out})`
    """
    def __init__(self, layer_config: LayerConfig, local: str | None = None,
                 **kwargs: Any) -> None:
        super().__init__()
        self.local = LocalConv(local or cfg.erwin.local, layer_config,
                               layer_config.dim_in)
        self.act = register.act_dict[layer_config.act]()
        self.erwin = ErwinConvLayer(
            replace(layer_config, dim_in=layer_config.dim_out))

    def forward(self, batch: Any) -> Any:
        r"""Runs the forward pass of the module.

        Args:
            batch (torch_geometric.data.Batch): The mini-batch.

        Raises:
            ValueError: If it has no positions, or they do not fit its
                features or :obj:`cfg.erwin.dim`.
        """
        batch.x = self.act(self.local(batch.x, batch.edge_index, batch))
        return self.erwin(batch)


register_layer('gcn_erwin_conv', partial(HybridErwinConvLayer,
                                         local='gcnconv'))
OURS = ('erwin_conv', 'erwin_gps_conv', 'hybrid_erwin_conv', 'gcn_erwin_conv')


class LocalConv(torch.nn.Module):
    r"""A GraphGym layer that is called as :obj:`conv(x, edge_index, batch)`.

    Args:
        name (str): The name of the layer.
        layer_config (LayerConfig): The output channels.
        in_channels (int): The input channels.

    Raises:
        ValueError: If GraphGym has no such layer, or it attends in balls.
    """
    def __init__(self, name: str, layer_config: LayerConfig,
                 in_channels: int) -> None:
        super().__init__()
        if name not in register.layer_dict or name in OURS:
            names = sorted(set(register.layer_dict) - set(OURS))
            raise ValueError(f"Expected 'cfg.erwin.local' to be one of "
                             f"{', '.join(map(repr, names))} (got {name!r})")
        # No batch normalization follows that would have a bias of its own.
        config = replace(layer_config, dim_in=in_channels, has_bias=True)
        self.layer = register.layer_dict[name](config)

    def forward(self, x: Tensor, edge_index: Any, batch: Any) -> Tensor:
        batch = copy.copy(batch)
        batch.x, batch.edge_index = x, edge_index
        return self.layer(batch).x
