r"""Names for what was made with given options."""

import copyreg
import functools
import hashlib
import reprlib
from collections.abc import Iterable
from types import (
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.datasets.byte_code import (
    cells,
    code_parts,
    globals_of,
    goes_by_name,
    members,
    name_of,
)

PLAIN = (type(None), type(...), type(NotImplemented), bool, int, float,
         complex, str, bytes, torch.dtype, torch.device, torch.layout,
         torch.memory_format)
COMPRESSED = {
    torch.sparse_csr: ('crow_indices', 'col_indices', 'values'),
    torch.sparse_bsr: ('crow_indices', 'col_indices', 'values'),
    torch.sparse_csc: ('ccol_indices', 'row_indices', 'values'),
    torch.sparse_bsc: ('ccol_indices', 'row_indices', 'values'),
    torch.sparse_coo: ('is_coalesced', '_indices', '_values'),
}


def fingerprint(*values: Any) -> str:
    r"""Returns sixteen digits that depend on all that the given transforms
    consist of, whatever :obj:`repr` tells of them: that of PyG's transforms
    is often their name alone. They are the same in every process.

    * **Objects** are what pickling keeps of them: their type, attributes and
      slots, or what their own :obj:`__reduce__` or :obj:`__getstate__` tells.
    * **Functions** are their byte code, defaults, closures and attributes,
      and the globals that they name; methods also their owner.
    * **Classes** are their bases and all of their members.
    * **Installed packages**, Python's library and this package go by names:
      another version of them is not seen. Neither is what functions find out
      as they run: files, the environment, modules that they import, or
      attributes that they look up by names that are computed.

    The byte code differs between versions of Python, and with it the digits.

    Raises:
        ValueError: If a value cannot be told from others of its kind, such
            as a generator, an open file, or an object of a compiled type
            that cannot be pickled.
    """
    try:
        text = Walk().describe(list(values))
    except RecursionError as error:
        raise _refusal('to be nested less deeply', values) from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tell(name: str, value: Any) -> str:
    r"""Returns the fingerprint of an argument.

    Raises:
        ValueError: If its value cannot be told from others of its kind.
    """
    try:
        return fingerprint(value)
    except ValueError as error:
        raise ValueError(
            f"Expected '{name}' to be told from others by what it consists "
            f"of, so that data made with it are found again and others are "
            f"not taken for them (got {reprlib.repr(value)}: {error})"
        ) from error


class Walk:
    r"""Writes out values. Whatever has an identity is written once and is a
    number from then on, its place in the walk, so cycles end.
    """
    def __init__(self, seen: dict[int, tuple[int, Any]] | None = None) -> None:
        # Values are kept, too: the next one could have a dead one's address.
        self.seen = {} if seen is None else dict(seen)

    def describe(self, value: Any) -> str:
        r"""Writes out a value: its type and all that it consists of."""
        kind = type(value)
        if kind in PLAIN:
            return repr(value)
        if kind is tuple:
            return f'tuple{self.describe_all(value)}'
        if kind in (set, frozenset):
            # As if each were the first, as their order is another each time.
            return kind.__name__ + str(sorted(
                Walk(self.seen).describe(each) for each in value))
        if kind is CodeType:
            return f'code{self.describe_all(code_parts(value))}'
        if id(value) in self.seen:
            return f'#{self.seen[id(value)][0]}'
        self.seen[id(value)] = len(self.seen), value
        return self._describe_new(value, kind)

    def describe_all(self, values: Iterable[Any]) -> str:
        return '(' + ', '.join(map(self.describe, values)) + ')'

    def _describe_new(self, value: Any, kind: type) -> str:
        if kind is list:
            return f'list{self.describe_all(value)}'
        if kind in (dict, MappingProxyType):
            return kind.__name__ + self.describe_all(value.items())
        if isinstance(value, Tensor):
            return self._describe_tensor(value)
        if kind is np.ndarray:
            return describe_array(value)
        if isinstance(value, ModuleType):
            return f'module {value.__name__}'
        if isinstance(value, type):
            return self._describe_class(value)
        if kind is FunctionType:
            return self._describe_function(value)
        return kind.__name__ + self.describe_all(parts(value))

    def _describe_tensor(self, value: Tensor) -> str:
        facts = (type(value), value.dtype, value.layout, tuple(value.shape))
        text = self.describe_all((*facts, by_name(vars(value))))
        if value.layout in COMPRESSED:
            inner = (getattr(value, x)() for x in COMPRESSED[value.layout])
            return f'tensor{text}{self.describe_all(inner)}'
        return f'tensor{text}{digest(value)}'

    def _describe_class(self, value: type) -> str:
        text = f'class {name_of(value)}'
        if goes_by_name(value):
            return text
        return text + self.describe_all(
            (type(value), value.__bases__, by_name(members(value))))

    def _describe_function(self, value: FunctionType) -> str:
        text = f'function {name_of(value)}'
        if goes_by_name(value):
            return text
        return text + self.describe_all(
            (value.__code__, value.__defaults__,
             by_name(value.__kwdefaults__ or {}), cells(value),
             by_name(vars(value)), by_name(globals_of(value))))


def by_name(attributes: Any) -> list[tuple[str, Any]]:
    r"""Attributes have no order that counts, unlike items of mappings."""
    return sorted(attributes.items(), key=lambda item: str(item[0]))


def parts(value: Any) -> tuple:
    r"""Takes an object apart."""
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, (classmethod, staticmethod)):
        return (value.__func__, )
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, functools.cached_property):  # has a lock
        return (value.func, )
    if isinstance(value, GetSetDescriptorType):
        return value.__objclass__, value.__name__
    if type(value) is object:
        raise _refusal('to have contents', value)
    found = reduced(value)
    wrapped = getattr(value, '__wrapped__', None)  # of functions with caches
    if isinstance(found, str):
        module = getattr(value, '__module__', None)
        return name_of(type(value)), module, found, wrapped
    make, args, state, items, pairs = (*found, None, None, None)[:5]
    if isinstance(state, dict):
        state = by_name(state)
    elif isinstance(state, tuple) and len(state) == 2 and isinstance(
            state[1], dict):  # attributes and slots
        state = by_name(state[0] or {}), by_name(state[1])
    return (type(value), wrapped, make, args, state, list(items or ()),
            list(pairs or ()))


def reduced(value: Any) -> tuple | str:
    r"""Returns what pickling keeps of an object; that of compiled types is
    refused by Python where it does not see all of it.
    """
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        return reduce(value) if reduce else value.__reduce_ex__(4)
    except Exception as error:  # whatever an object raises instead
        raise _refusal("to be picklable, or to have a method '__getstate__' "
                       'that tells what it consists of', value) from error


def describe_array(value: np.ndarray) -> str:
    if value.dtype.hasobject:
        raise _refusal('to hold numbers or texts, if it is an array', value)
    data = hashlib.sha256(value.tobytes()).hexdigest()
    return f'array {value.dtype.descr}{value.dtype.str}{value.shape}{data}'


def digest(value: Tensor) -> str:
    r"""Hashes the bytes of a dense tensor of any type on any device."""
    try:
        value = value.detach().resolve_conj().resolve_neg().cpu()
        data = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise _refusal('to be dense or sparse and to have values, if it is a '
                       'tensor', value) from error
    return hashlib.sha256(data.tobytes()).hexdigest()


def _refusal(what: str, value: Any) -> ValueError:
    return ValueError(f"Expected what data are made with {what} (got "
                      f"{type(value).__name__} {reprlib.repr(value)})")
