r"""Whether layers may be computed together."""

import torch
from torch.nn.modules import module as nn_module
from torch_geometric.nn import MessagePassing

HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks',
         '_backward_pre_hooks')


def is_untouched(module: torch.nn.Module, kind: type) -> bool:
    r"""Whether a module is still what it was made as, so that its weights
    tell all of what it does: not replaced, not parametrized, and with no
    hooks that wait to be called.
    """
    own = vars(module)
    return (type(module) is kind and 'forward' not in own
            and not any(own[name] for name in HOOKS))


def is_watched(conv: MessagePassing) -> bool:
    r"""Whether somebody wants to see or change messages."""
    return bool(conv.explain or any(
        getattr(conv, f'_{step}_forward_{kind}hooks')
        for step in ('propagate', 'message', 'aggregate', 'edge_update')
        for kind in ('', 'pre_')))


def has_global_hooks() -> bool:
    r"""Whether some hooks wait for all modules."""
    return any(getattr(nn_module, f'_global{name}') for name in HOOKS)
