r"""Which tree a mini-batch has, and whose turn its orientations are.

GraphGym builds layers without telling their place in the stack, and calls a
pooling without the mini-batch. So what belongs to a mini-batch on its way
through a model is kept here, for as long as the mini-batch lives.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torch_geometric_erwin.graphgym.position import check_positions
from torch_geometric_erwin.tree import BallTree
from torch_geometric_erwin.tree.storage import SIZES, stored_positions


class Source(NamedTuple):
    r"""What the tree of a mini-batch depends on."""
    pos: Tensor
    batch: Tensor | None
    sizes: Tensor | None
    version: int  # how often positions were written to
    options: str

    def is_same(self, other: 'Source') -> bool:
        return (all(a is b for a, b in zip(self[:3], other[:3], strict=True))
                and self[3:] == other[3:])


@dataclass(eq=False)
class ForwardPass:
    r"""What the layers share.

    Args:
        tree: The ball tree of the mini-batch.
        source: The tensors that it was made from: positions, vector and, if
            it was stored, sizes.
        turns: The place of each layer in the stack.
    """
    tree: BallTree
    source: Source
    turns: 'WeakKeyDictionary[torch.nn.Module, int]' = field(
        default_factory=WeakKeyDictionary)

    def turn_of(self, layer: torch.nn.Module) -> int:
        r"""Counts layers as they come by; a layer that comes again, with
        checkpoints or in a second pass, keeps its turn.
        """
        return self.turns.setdefault(layer, len(self.turns))


# By identity: mini-batches have no hash.
_passes = WeakIdKeyDictionary()


def ball_tree(batch: Any, **options: Any) -> BallTree:
    r"""Returns the ball tree of a mini-batch: the one it stores, else one
    that is built from :obj:`batch.pos`, once for all that ask.

    Networks and layers of your own may call it, too: :obj:`ball_pooling`
    finds the tree from then on.

    Args:
        batch (torch_geometric.data.Batch): The mini-batch.
        **options (optional): Arguments of
            :meth:`~torch_geometric_erwin.BallTree.build`, if there is no
            tree yet.

    Raises:
        ValueError: If there are no positions, or the stored tree is one of
            other points.
    """
    return forward_pass(batch, options).tree


def forward_pass(batch: Any, options: dict[str, Any]) -> ForwardPass:
    pos = positions(batch)
    stored = batch.get(SIZES)
    version = 0 if pos.is_inference() else pos._version
    source = Source(pos, batch.get('batch'), stored, version,
                    '' if stored is not None else repr(options))
    found = _passes.get(batch)
    if found is None or not found.source.is_same(source):
        tree = _make_tree(batch, options)
        found = _passes[batch] = ForwardPass(tree, source)
    return found


def positions(batch: Any) -> Tensor:
    r"""Returns the positions of the tree that a mini-batch stores, or that is
    to be built.
    """
    if SIZES in batch:
        return stored_positions(batch)
    check_positions(batch, 'batch')
    return batch.pos


def _make_tree(batch: Any, options: dict[str, Any]) -> BallTree:
    if SIZES in batch:
        return BallTree.from_data(batch)
    return BallTree.build(batch.pos, batch.get('batch'),
                          ptr=batch.get('ptr'), **options)


def find_tree(vector: Tensor | None) -> BallTree | None:
    r"""Returns the tree of the mini-batch that this very vector belongs to,
    so that another mini-batch's is never taken for it.
    """
    if vector is None:
        return None
    for found in list(_passes.values()):
        if found.source.batch is vector:
            return found.tree
    return None


def turned_tree(layer: torch.nn.Module, batch: Any, options: dict[str, Any],
                blocks: int) -> BallTree:
    r"""Returns the finest level of a mini-batch's tree, with the orientation
    first that is a layer's turn.

    Args:
        layer: The layer, of a stack of its kind.
        batch: The mini-batch.
        options: How to build the tree.
        blocks: How many orientations each layer of the stack takes.
    """
    found = forward_pass(batch, options)
    tree = found.tree
    start = found.turn_of(layer) * blocks % tree.num_orientations
    level = tree.levels[0]
    masks = None if level.masks is None else _roll(level.masks, start)
    level = replace(
        level, stride=None, masks=masks,
        mask=level.mask if masks is None else masks[0],
        index=_roll(level.index, start), inverse=_roll(level.inverse, start))
    return replace(tree, levels=(level, ))


def _roll(items: tuple, start: int) -> tuple:
    return items[start:] + items[:start]
