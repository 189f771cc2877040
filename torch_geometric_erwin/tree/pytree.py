r"""Ball trees as inputs and outputs of :func:`torch.export.export`, and in
files that are loaded with :obj:`weights_only=True`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torch_geometric_erwin.tree.ball_tree import BallTree
from torch_geometric_erwin.tree.structure import Level

TENSOR = 'a tensor'


def flatten(tree: BallTree) -> tuple[list[Tensor], Any]:
    r"""Returns the tensors of a tree, and all else, nested likewise."""
    tensors: list[Tensor] = []

    def take(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return TENSOR
        if isinstance(value, Level):
            return tuple(map(take, vars(value).values()))
        return tuple(map(take, value)) if isinstance(value, tuple) else value

    rest = tuple(map(take, vars(tree).values()))
    return tensors, rest


def unflatten(tensors: Any, rest: Any) -> BallTree:
    r"""Inverts :func:`flatten`."""
    left: Iterator[Any] = iter(tensors)

    def put(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(put, value))
        return next(left) if value == TENSOR else value

    names = list(BallTree.__dataclass_fields__)
    fields = dict(zip(names, put(rest), strict=True))
    fields['levels'] = tuple(Level(*level) for level in fields['levels'])
    return BallTree(**fields)


def flatten_with_keys(tree: BallTree) -> tuple[list[tuple[Any, Tensor]], Any]:
    tensors, rest = flatten(tree)
    return [(pytree.SequenceKey(i), x) for i, x in enumerate(tensors)], rest


def from_json(rest: Any) -> Any:
    r"""Makes tuples of lists again."""
    return tuple(map(from_json, rest)) if isinstance(rest, list) else rest


def register() -> None:
    pytree.register_pytree_node(
        BallTree, flatten, unflatten,
        serialized_type_name='torch_geometric_erwin.BallTree',
        to_dumpable_context=lambda rest: rest,
        from_dumpable_context=from_json,
        flatten_with_keys_fn=flatten_with_keys)
    torch.serialization.add_safe_globals([BallTree, Level])
