r"""Checks of what users pass to layers."""

from typing import Any

from torch import Tensor

from torch_geometric_erwin.tree import BallTree
from torch_geometric_erwin.tree.checks import is_power_of_two


def check_input(x: Any, tree: Any, channels: int, dim: int | None,
                x_name: str = 'x', tree_name: str = 'tree') -> None:
    r"""Checks that features and a tree fit each other and a layer."""
    check_tree(tree, dim, tree_name)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() != 2:
        got = (f'{x.dtype} of shape {list(x.shape)}' if isinstance(x, Tensor)
               else type(x).__name__)
        raise ValueError(f"Expected '{x_name}' to be a floating-point tensor "
                         f"of shape [num_points, channels] (got {got})")
    if x.size(1) != channels and channels != -1:
        raise ValueError(f"Expected '{x_name}' to have {channels} channels "
                         f"(got {x.size(1)})")
    if x.size(0) != tree.num_points:
        raise ValueError(f"Expected '{x_name}' to have one row per point of "
                         f"'{tree_name}', {tree.num_points} (got "
                         f"{x.size(0)})")
    if x.device != tree.device:
        raise ValueError(f"Expected '{tree_name}' to be on the device of "
                         f"'{x_name}', {x.device} (got {tree.device})")


def check_tree(tree: Any, dim: int | None, name: str = 'tree') -> None:
    if not isinstance(tree, BallTree):
        raise ValueError(f"Expected '{name}' to be a BallTree (got "
                         f"{type(tree).__name__}). Trees of a data set belong "
                         f"on its data by 'AddBallTree' or 'tree.to_data', "
                         f"from where 'BallTree.from_data' reads them")
    if dim is not None and tree.pos.size(1) != dim:
        raise ValueError(f"Expected '{name}' to have positions in {dim} "
                         f"dimensions, as the layer's 'dim' says (got "
                         f"{tree.pos.size(1)})")


def check_partition(tree: BallTree, partition: Any) -> None:
    number = tree.num_orientations
    if not isinstance(partition, int) or not 0 <= partition < number:
        raise ValueError(f"Expected 'partition' to be one of the tree's "
                         f"{number} orientations, from 0 on "
                         f"(got {partition!r})")


def check_stride(tree: BallTree, stride: int, name: str = 'tree') -> None:
    if tree.num_levels < 2 or tree.strides[0] != stride:
        got = tree.strides[0] if tree.num_levels > 1 else 'no coarser level'
        raise ValueError(f"Expected '{name}' to have a coarser level at a "
                         f"stride of {stride} (got {got})")


def check_coarse_tree(coarse_tree: BallTree, tree: BallTree) -> None:
    number = tree.levels[1].num_points
    if number != coarse_tree.num_points:
        raise ValueError(f"Expected 'coarse_tree' to be the next level of "
                         f"'tree', with {number} points (got "
                         f"{coarse_tree.num_points})")


def check_heads(channels: int, heads: int) -> None:
    check_positive('channels', channels)
    check_positive('heads', heads)
    if channels % heads:
        raise ValueError(f"Expected 'heads' to divide the {channels} "
                         f"channels (got {heads})")


def check_positive(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"Expected '{name}' to be an integer of at least "
                         f"{least} (got {value!r})")


def check_choice(name: str, value: Any, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"Expected '{name}' to be one of "
                         f"{', '.join(map(repr, choices))} (got {value!r})")


def check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"Expected 'dropout' to be in [0, 1) "
                         f"(got {dropout})")


def check_pooling(in_channels: int, out_channels: int, stride: int,
                  dim: int) -> None:
    if in_channels != -1:
        check_positive('in_channels', in_channels)
    check_positive('out_channels', out_channels)
    check_positive('dim', dim)
    if not is_power_of_two(stride):
        raise ValueError(f"Expected 'stride' to be a power of two "
                         f"(got {stride!r})")


def check_edge_index(edge_index: Any) -> None:
    if (not isinstance(edge_index, Tensor) or edge_index.dim() != 2
            or edge_index.size(0) != 2 or edge_index.is_floating_point()):
        got = (f'{edge_index.dtype} of shape {list(edge_index.shape)}'
               if isinstance(edge_index, Tensor)
               else type(edge_index).__name__)
        raise ValueError(f"Expected 'edge_index' to hold integers of shape "
                         f"[2, num_edges] (got {got})")


def check_edge_shift(edge_shift: Any, edge_index: Tensor, dim: int) -> None:
    size = [edge_index.size(1), dim]
    if edge_shift is not None and (not isinstance(edge_shift, Tensor)
                                   or list(edge_shift.shape) != size):
        got = (list(edge_shift.shape) if isinstance(edge_shift, Tensor)
               else type(edge_shift).__name__)
        raise ValueError(f"Expected 'edge_shift' to have shape [num_edges, "
                         f"dim], {size} (got {got})")
