import copy
import inspect
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import BatchNorm
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import normalization_resolver

from torch_geometric_erwin.tree import BallTree

try:
    from torch.fx.experimental.symbolic_shapes import guard_or_false
except ImportError:  # before PyTorch 2.8
    guard_or_false = bool  # type: ignore[assignment]


class CloudNorm(torch.nn.Module):
    r"""Any normalization of PyG's, told about a tree's clouds if it normalizes
    each graph on its own.

    Args:
        norm (str or torch.nn.Module or Callable or None): Its name, a
            module to copy, or what makes one for a number of channels.
        channels (int): Size of each sample.
        norm_kwargs (Dict[str, Any], optional): Arguments of the
            normalization. By default, batch normalization uses its running
            statistics where there is a single point, which has no variance.
            (default: :obj:`None`)
    """
    def __init__(self, norm: Any, channels: int,
                 norm_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__()
        kwargs = dict(norm_kwargs or {})
        is_batch_norm = isinstance(norm, str) and (
            norm.lower().replace('_', '') == 'batchnorm')
        if is_batch_norm and kwargs.get('track_running_stats', True):
            kwargs.setdefault('allow_single_element', True)
        self.module = None
        if isinstance(norm, str):
            self.module = normalization_resolver(norm, channels, **kwargs)
        elif isinstance(norm, torch.nn.Module):
            self.module = copy.deepcopy(norm)
        elif norm is not None:
            self.module = norm(channels, **kwargs)
        self.with_batch = self.module is not None and 'batch' in (
            inspect.signature(self.module.forward).parameters)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        if self.module is not None:
            reset(self.module)

    def forward(self, x: Tensor, tree: BallTree) -> Tensor:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor): The features of the points.
            tree (BallTree): Their ball tree.
        """
        if self.module is None:
            return x
        if self.with_batch:
            return self.module(x, tree.batch, tree.num_clouds)
        if torch.compiler.is_compiling() and isinstance(self.module,
                                                        BatchNorm):
            return self._compiled_batch_norm(x)
        return self.module(x)

    def _compiled_batch_norm(self, x: Tensor) -> Tensor:
        r"""PyG asks whether there is a single point, and PyTorch whether there
        are any, which a compiler cannot tell where the tree is built within
        the model.
        """
        assert isinstance(self.module, BatchNorm)
        norm = self.module.module
        if not norm.training and norm.running_mean is not None:
            scale = (norm.running_var + norm.eps).rsqrt()
            x = (x - norm.running_mean) * scale
            return x if norm.weight is None else x * norm.weight + norm.bias
        if guard_or_false(x.size(0) <= 1):
            return self.module(x)
        torch._check(x.size(0) > 1)
        return norm(x)
