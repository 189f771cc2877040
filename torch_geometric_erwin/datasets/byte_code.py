r"""What functions and classes consist of."""

import os.path as osp
import sys
import sysconfig
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

HEAP = 1 << 9  # Python's flag of classes that were not compiled with it
OURS = __name__.partition('.')[0]
# What Python and its modules keep on classes that is not written in them, or
# says nothing about what they do.
SKIPPED = {
    '__abstractmethods__', '__annotate__', '__annotate_func__',
    '__annotations__', '__annotations_cache__', '__dict__', '__doc__',
    '__firstlineno__', '__module__', '__parameters__', '__slotnames__',
    '__static_attributes__', '__weakref__', '_abc_impl',
}


def name_of(value: Any) -> str:
    return f'{value.__module__}.{value.__qualname__}'


def goes_by_name(value: Any) -> bool:
    r"""Whether the name of a function or class tells all: it leads to it, in
    a module that does not change.
    """
    if not is_installed(value.__module__):
        return False
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split('.'):
        found = getattr(found, part, None)
    return found is value or (
        isinstance(value, type) and not value.__flags__ & HEAP)


def is_installed(name: str | None) -> bool:
    r"""Whether a module is of this package, an installed one or Python."""
    module = sys.modules.get(name or '')
    if module is None or name == '__main__':
        return False
    if (name or '').partition('.')[0] == OURS:
        return True
    file = getattr(module, '__file__', None)
    if file is None:
        spec = getattr(module, '__spec__', None)
        return spec is not None and spec.origin in ('built-in', 'frozen')
    folders = osp.abspath(file).split(osp.sep)
    return ('site-packages' in folders or 'dist-packages' in folders
            or osp.abspath(file).startswith(
                sysconfig.get_path('stdlib') + osp.sep))


def code_parts(code: CodeType) -> tuple:
    r"""Returns what byte code does, but not where it is written."""
    return (code.co_code, code.co_consts, code.co_names, code.co_varnames,
            code.co_freevars, code.co_cellvars, code.co_argcount,
            code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags,
            getattr(code, 'co_exceptiontable', b''))


def names_in(code: CodeType) -> Iterator[str]:
    r"""Yields the names that code and the functions within it look up."""
    yield from code.co_names
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from names_in(value)


def globals_of(function: FunctionType) -> dict[str, Any]:
    r"""Returns the globals that a function names, and for modules of one's
    own what it names of them.
    """
    scope, names = function.__globals__, {*names_in(function.__code__)}
    if is_installed(scope.get('__name__')):
        return {}
    found = {name: scope[name] for name in names if name in scope}
    modules = [value for value in found.values() if isinstance(
        value, ModuleType) and not is_installed(value.__name__)]
    for module in modules:
        found |= {f'{module.__name__}.{name}': vars(module)[name]
                  for name in names if name in vars(module)}
    return found


def cells(function: FunctionType) -> list[tuple]:
    r"""Returns the contents of a function's closure."""
    return [contents(cell) for cell in function.__closure__ or ()]


def contents(cell: CellType) -> tuple:
    try:
        return (cell.cell_contents, )
    except ValueError:  # nothing has been assigned yet
        return ()


def members(value: type) -> dict[str, Any]:
    return {name: member for name, member in vars(value).items()
            if name not in SKIPPED}
