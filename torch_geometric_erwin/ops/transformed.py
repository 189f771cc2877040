r"""Who computes under the transforms of :mod:`torch.func`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad
from torch.nn import Parameter

PLAIN = Tensor, Parameter


def needs_formula(*tensors: Tensor | None, cell: Tensor | None = None) -> bool:
    r"""Whether only PyTorch's own operations will do.

    That is within :func:`torch.func.vmap` and forward-mode differentiation,
    for which kernels have no rules, and where a periodic :obj:`cell` is
    differentiated. They have rules for all other derivatives in reverse mode.
    """
    if cell is not None and cell.requires_grad:
        return True
    if torch.compiler.is_compiling():
        return False
    levels = _functorch.get_interpreter_stack() or []
    reverse = _functorch.TransformType.Grad
    if any(level.key() != reverse for level in levels):
        return True
    return forward_ad._current_level >= 0 and any(
        x is not None and forward_ad.unpack_dual(x).tangent is not None
        for x in (*tensors, cell))


def is_transformed(x: Tensor) -> bool:
    r"""Whether it is a transform's stand-in for a tensor."""
    return not torch.compiler.is_compiling() and (
        _functorch.is_functorch_wrapped_tensor(x))


def is_plain(x: Tensor) -> bool:
    r"""Whether it is a tensor with data of its own, not a stand-in of a
    compiler, a transform or somebody's subclass.
    """
    return type(x) is Tensor and not torch.compiler.is_compiling() and (
        not _functorch.is_functorch_wrapped_tensor(x))


def is_bare(*tensors: Tensor | None) -> bool:
    r"""Whether these are plain tensors of which nobody wants derivatives, and
    nobody watches operators: then kernels may be called at once.
    """
    if (torch.compiler.is_compiling() or within_transform()
            or torch._C._len_torch_dispatch_stack() > 0
            or torch.jit.is_tracing() or torch.autograd._profiler_enabled()):
        return False
    tracked = torch.is_grad_enabled()
    return all(x is None or (type(x) in PLAIN
                             and not (tracked and x.requires_grad))
               for x in tensors)


def within_transform() -> bool:
    r"""Whether some transform of :mod:`torch.func` is under way."""
    return bool(_functorch.get_interpreter_stack())


def by_formula(formula: Callable[..., Any],
               variables: Sequence[Tensor | None], needs: Sequence[bool],
               grad: Tensor | tuple[Tensor, ...]) -> list[Tensor | None]:
    r"""Returns differentiable gradients of those variables that need them,
    given those of the formula's result, or of all of its results.
    """
    # Views, lest gradients go on to what a variable was made of.
    variables = [v if v is None else v.view_as(v) for v in variables]
    wanted = [v for v, need in zip(variables, needs, strict=True)
              if need and v is not None]

    def run(*some: Tensor) -> Any:
        left = iter(some)
        return formula(*(next(left) if need else v for v, need in
                         zip(variables, needs, strict=True)))

    if within_transform():  # it tracks what it is given
        found = iter(torch.func.vjp(run, *wanted)[1](grad))
    else:
        found = iter(torch.autograd.grad(run(*wanted), wanted, grad,
                                         create_graph=True))
    return [next(found) if need else None for need in needs]


def all_values(x: Tensor) -> Tensor:
    r"""Returns all numbers that a tensor stands for, to look at them within
    :func:`torch.func.vmap`, too.
    """
    while is_transformed(x):
        x = _functorch.get_unwrapped(x)
    return x
