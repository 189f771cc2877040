r"""Names for what was made with given options."""

import functools
import hashlib
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch_geometric.data.dataset import _repr


def fingerprint(*values: Any) -> str:
    r"""Returns sixteen digits that depend on the options of the given
    transforms, whatever :obj:`repr` tells of them: that of PyG's transforms
    is often their name alone.

    Raises:
        ValueError: If a value cannot be told from others of its kind, such
            as a function that was defined within another.
    """
    text = describe(list(values))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tell(value: Any) -> str:
    r"""Returns the same for what can be told from others of its kind, and
    what PyG goes by, its printed form, for the rest.
    """
    try:
        return fingerprint(value)
    except ValueError:
        return _repr(value)


def describe(value: Any) -> str:
    r"""Writes out a value: its type and all that it consists of."""
    if value is None or isinstance(
            value, (bool, int, float, complex, str, bytes, torch.dtype,
                    torch.device, type)):
        return repr(value)
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = np.ascontiguousarray(torch.as_tensor(value).detach().cpu())
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        return f'{array.dtype}{array.shape}{digest}'
    if isinstance(value, Mapping):
        items = sorted((describe(k), describe(v)) for k, v in value.items())
        return type(value).__name__ + describe_all(items)
    if isinstance(value, (set, frozenset)):
        return type(value).__name__ + repr(sorted(map(describe, value)))
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + describe_all(value)
    return describe_object(value)


def describe_all(values: Any) -> str:
    return '(' + ', '.join(map(describe, values)) + ')'


def describe_object(value: Any) -> str:
    if isinstance(value, functools.partial):
        return f'partial{describe([value.func, value.args, value.keywords])}'
    if isinstance(value, (FunctionType, BuiltinFunctionType)):
        name = f'{value.__module__}.{value.__qualname__}'
        if '<' in name:
            raise ValueError(f"Expected functions that transform data to be "
                             f"defined in a module, so that what they made "
                             f"is found again (got {name})")
        return name
    if not hasattr(value, '__dict__'):
        raise ValueError(f"Expected what transforms data to consist of "
                         f"numbers, texts, tensors and objects of these "
                         f"(got {value!r})")
    kind = f'{type(value).__module__}.{type(value).__qualname__}'
    return kind + describe(vars(value))
