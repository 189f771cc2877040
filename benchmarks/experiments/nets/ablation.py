r"""What is left of attention when something is taken away from it."""

from typing import Literal

import torch
from torch.nn import Parameter

from torch_geometric_erwin.nn import BallAttention

Attention = Literal['content', 'distance', 'mean']
ATTENTION = 'content', 'distance', 'mean'


def restrict(net: torch.nn.Module, attention: Attention = 'content',
             relative_positions: bool = True) -> None:
    r"""Takes something away from all ball attention in a network. What is
    taken away is frozen at zero, so that the same kernels run at the same
    cost.

    Args:
        net (torch.nn.Module): The network.
        attention (str, optional): What weights depend on:
            :obj:`"content"`, on features and distances; :obj:`"distance"`, on
            distances alone; :obj:`"mean"`, on nothing: each point of a ball
            has the same weight. (default: :obj:`"content"`)
        relative_positions (bool, optional): If set to :obj:`False`, points
            do not know where in their ball they are (equation 9).
            (default: :obj:`True`)

    Raises:
        ValueError: If there is no such attention, or none at all.
    """
    if attention not in ATTENTION:
        raise ValueError(f"Expected 'attention' to be one of "
                         f"{list(ATTENTION)} (got {attention!r})")
    if attention == 'content' and relative_positions:
        return
    layers = [module for module in net.modules()
              if isinstance(module, BallAttention)]
    if not layers:
        raise ValueError(f"Expected 'net' to have ball attention, from which "
                         f"to take something away (got {type(net).__name__} "
                         f"without any)")
    for attn in layers:
        if attention != 'content':  # no queries and keys
            keep_at_zero(attn.lin_qkv.weight, 2 * attn.channels)
            keep_at_zero(attn.lin_qkv.bias, 2 * attn.channels)
        if attention == 'mean' and attn.sigma is not None:
            keep_at_zero(attn.sigma)
        if not relative_positions:
            keep_at_zero(attn.lin_pos.weight)
            keep_at_zero(attn.lin_pos.bias)


def keep_at_zero(weight: Parameter, rows: int | None = None) -> None:
    r"""Sets the first rows, or all, to zero, where they stay: optimizers see
    no gradient, and weight decay changes nothing.
    """
    mask = torch.ones_like(weight)
    mask[:rows] = 0.
    with torch.no_grad():
        weight.mul_(mask)
    weight.register_hook(lambda grad: grad * mask.to(grad))
