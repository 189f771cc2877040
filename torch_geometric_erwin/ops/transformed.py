r"""Who computes under the transforms of :mod:`torch.func`."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def needs_formula(*tensors: Tensor | None) -> bool:
    r"""Whether only PyTorch's own operations will do: within
    :func:`torch.func.vmap` and forward-mode differentiation, for which
    kernels have no rules. Derivatives in reverse mode have them.
    """
    if torch.compiler.is_compiling():
        return False
    stack = torch._C._functorch.get_interpreter_stack()
    reverse = torch._C._functorch.TransformType.Grad
    if stack and any(level.key() != reverse for level in stack):
        return True
    return any(x is not None and forward_ad.unpack_dual(x).tangent is not None
               for x in tensors)
