r"""What models have in common: levels, trees, and the way down and up."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_geometric_erwin.nn.checks import (
    check_choice,
    check_edge_index,
    check_edge_shift,
    check_input,
    check_positive,
)
from torch_geometric_erwin.nn.scripting import NotScriptable
from torch_geometric_erwin.tree import BallTree
from torch_geometric_erwin.tree.checks import (
    check_axes,
    check_levels,
    check_rotations,
)

# Features of points: scalars, or scalars and vectors.
Features = tuple[Tensor, ...]


class ErwinBase(NotScriptable, torch.nn.Module):
    r"""A model of layers on a tree with levels, with an :obj:`embedding`,
    stages :obj:`encoder` and :obj:`decoder`, and :obj:`pools` and
    :obj:`unpools` between them.
    """
    embedding: Any

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[int],
        out_channels: int | None,
        *,
        ball_sizes: int | Sequence[int],
        strides: Sequence[int],
        dim: int,
        decode: bool,
        rotations: Sequence[Any],
        completion: str,
        axes: str,
        periodic: bool | None,
    ) -> None:
        super().__init__()
        self.ball_sizes, self.strides = check_levels(ball_sizes, strides)
        hidden = _each('hidden_channels', hidden_channels,
                       len(self.strides) + 1)
        if in_channels != -1:
            check_positive('in_channels', in_channels)
        if out_channels is not None:
            check_positive('out_channels', out_channels)
        check_choice('completion', completion, ('balanced', 'perfect'))

        self.in_channels = in_channels
        self.hidden_channels = hidden
        self.out_channels = out_channels
        self.dim = dim
        self.decode = decode
        self.rotations = check_rotations(rotations, dim)
        check_axes(axes, self.rotations)
        self.completion = completion
        self.axes = axes
        self.periodic = periodic

    def _make_stages(
        self,
        depths: int | Sequence[int],
        heads: int | Sequence[int],
        decoder_depths: int | Sequence[int],
        decoder_heads: int | Sequence[int],
        blocks: Callable[[int, int, int], torch.nn.Module],
        pool: Callable[[int, int, int], torch.nn.Module],
        unpool: Callable[[int, int, int], torch.nn.Module],
    ) -> None:
        hidden, strides, last = (self.hidden_channels, self.strides,
                                 len(self.strides))
        depths = _each('depths', depths, last + 1)
        heads = _each('heads', heads, last + 1)
        back = _each('decoder_depths', decoder_depths, last, depths[:last])
        back_heads = _each('decoder_heads', decoder_heads, last, heads[:last])
        self.encoder = torch.nn.ModuleList(
            blocks(*args) for args in zip(hidden, heads, depths, strict=True))
        self.pools = torch.nn.ModuleList(
            pool(hidden[i], hidden[i + 1], strides[i]) for i in range(last))
        self.unpools = torch.nn.ModuleList()
        self.decoder = torch.nn.ModuleList()
        if self.decode:
            self.unpools.extend(unpool(hidden[i + 1], hidden[i], strides[i])
                                for i in range(last))
            self.decoder.extend(
                blocks(*args)
                for args in zip(hidden[:last], back_heads, back, strict=True))

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        for module in (self.embedding, *self.encoder, *self.pools,
                       *self.unpools, *self.decoder):
            module.reset_parameters()

    def build_tree(
        self,
        pos: Tensor,
        batch: Tensor | None = None,
        *,
        box: Tensor | Sequence[Any] | float | None = None,
        pbc: Tensor | Sequence[Any] | bool | None = None,
        ptr: Tensor | None = None,
    ) -> BallTree:
        r"""Builds the tree that the model works on, with its levels and
        orientations; see :meth:`torch_geometric_erwin.BallTree.build`.
        """
        return BallTree.build(pos, batch, ball_size=self.ball_sizes,
                              strides=self.strides, rotations=self.rotations,
                              completion=self.completion, axes=self.axes,
                              box=box, pbc=pbc, ptr=ptr)

    def _check_input(self, x: Tensor, tree: BallTree, edge_index: Any,
                     edge_shift: Any) -> None:
        check_input(x, tree, self.in_channels, self.dim)
        if edge_index is not None:
            check_edge_index(edge_index)
            check_edge_shift(edge_shift, edge_index, self.dim)

    def _through_levels(self, features: Features,
                        tree: BallTree) -> tuple[Features, BallTree]:
        r"""Takes features through all levels, and returns them with the tree
        that they are of: the caller's, or the coarsest level.
        """
        # From here on, balls are runs of rows, and small numbers tell where.
        level, index, inverse = tree.centered().in_slot_order()
        features, skips = tuple(x[index] for x in features), []
        for conv, pool in zip(self.encoder, self.pools, strict=False):
            offsets = level.offsets(None)
            features = _features(conv(*features, level, offsets))
            skips.append((features, level, offsets))
            *coarse, level = pool(*features, level)
            features = tuple(coarse)
        features = _features(self.encoder[-1](*features, level))
        for i in reversed(range(len(self.decoder))):
            skip, fine, offsets = skips[i]
            features = _features(self.unpools[i](*features, level, *skip,
                                                 fine))
            features = _features(self.decoder[i](*features, fine, offsets))
            level = fine
        if self.decode or not self.strides:
            return tuple(x[inverse] for x in features), tree
        return features, _last(tree)

    def _find_tree(
        self,
        tree: BallTree | None,
        pos: Tensor | None,
        batch: Tensor | None,
        box: Tensor | Sequence[Any] | float | None,
        pbc: Tensor | Sequence[Any] | bool | None,
    ) -> BallTree:
        if (tree is None) == (pos is None):
            raise ValueError(f"Expected either 'tree' or 'pos' to be given "
                             f"(got {'neither' if pos is None else 'both'})")
        if tree is None:
            assert pos is not None
            self._check_periodic(box is not None)
            return self.build_tree(pos, batch, box=box, pbc=pbc)
        if any(arg is not None for arg in (batch, box, pbc)):
            raise ValueError("Expected 'batch', 'box' and 'pbc' to be given "
                             "along with 'pos' (got one along with 'tree')")
        if not isinstance(tree, BallTree):
            raise ValueError(f"Expected 'tree' to be a BallTree "
                             f"(got {type(tree).__name__})")
        self._check_periodic(tree.box is not None)
        ours = (self.ball_sizes, self.strides, len(self.rotations))
        theirs = (tree.ball_sizes, tree.strides, tree.num_orientations)
        if ours != theirs:
            raise ValueError(
                f"Expected 'tree' to have the model's ball sizes, strides "
                f"and number of orientations, {ours}: use 'build_tree' of "
                f"the model (got {theirs})")
        how = (tuple(self.rotations), self.completion, self.axes)
        found = tree.rotations, tree.completion, tree.axes
        if tree.rotations is not None and how != found:
            raise ValueError(
                f"Expected 'tree' to be built with the model's 'rotations', "
                f"'completion' and 'axes', {how}: use 'build_tree' of the "
                f"model (got {found})")
        return tree

    def _check_periodic(self, is_periodic: bool) -> None:
        if self.periodic not in (None, is_periodic):
            raise ValueError(
                f"Expected a {'' if self.periodic else 'tree without a '}"
                f"periodic {'tree' if self.periodic else 'cell'}, as the "
                f"model's 'periodic={self.periodic}' says (got one "
                f"{'with' if is_periodic else 'without'} a 'box')")

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_channels}, '
                f'{self.hidden_channels}, {self.out_channels}, '
                f'ball_sizes={self.ball_sizes}, strides={self.strides})')


def _features(out: Tensor | Features) -> Features:
    return (out, ) if isinstance(out, Tensor) else out


def _last(tree: BallTree) -> BallTree:
    r"""Returns the coarsest level, where the caller's points are."""
    tree, _, _ = tree.in_slot_order()
    while tree.num_levels > 1:
        tree = tree.coarsen()
    return tree


def _each(name: str, value: int | Sequence[int], number: int,
          default: Sequence[int] = ()) -> list[int]:
    r"""Returns one number for each level; a single one stands for all."""
    values = ([value] * number if isinstance(value, int) else list(value)
              or list(default))
    if len(values) != number:
        raise ValueError(f"Expected '{name}' to be an integer or to have one "
                         f"entry per level, {number} (got {values})")
    return values
