r"""Whether layers may be computed together."""

import torch
from torch.nn.modules import module as nn_module

HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks',
         '_backward_pre_hooks')


def is_untouched(module: torch.nn.Module, kind: type) -> bool:
    r"""Whether a module is still what it was made as, so that its weights
    tell all of what it does: not replaced, not parametrized, and with no
    hooks that wait to be called.
    """
    return (type(module) is kind and 'forward' not in vars(module)
            and not any(getattr(module, name) for name in HOOKS))


def has_global_hooks() -> bool:
    r"""Whether some hooks wait for all modules."""
    return any(getattr(nn_module, f'_global{name}') for name in HOOKS)
