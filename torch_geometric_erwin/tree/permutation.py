r"""Ball trees from permutations that somebody else computed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_geometric_erwin.tree.checks import (
    check_finite,
    check_levels,
    check_pos,
    check_vector,
)
from torch_geometric_erwin.tree.clouds import group_clouds
from torch_geometric_erwin.tree.structure import Level, TreeT


def from_permutation(
    kind: type[TreeT],
    pos: Tensor,
    batch: Tensor | None,
    index: Tensor,
    mask: Tensor | None,
    ball_size: int | Sequence[int],
    strides: Sequence[int],
    rotated: Sequence[Tensor] | None,
    virtual: str,
) -> TreeT:
    r"""See :meth:`BallTree.from_permutation`."""
    check_pos(pos)
    check_finite(pos)
    ball_sizes, strides = check_levels(ball_size, strides)
    if virtual not in ('masked', 'copy'):
        raise ValueError(f"Expected 'virtual' to be 'masked' or 'copy' "
                         f"(got {virtual!r})")
    clouds = group_clouds(pos, batch, None)
    check_vector(index, 'index', pos)
    mask = _check_mask(mask, index)
    _check_permutation(index, mask, pos.size(0))
    turned = _check_rotated(rotated, index, len(ball_sizes), strides)
    cloud = clouds.batch[index]
    levels: list[Level] = []
    inverse = torch.empty_like(clouds.batch)
    inverse[index[mask]] = torch.nonzero(mask).view(-1)
    group = None
    for i, size in enumerate(ball_sizes):
        _check_balls(cloud, size)
        if turned[i] is not None:
            _check_balls(cloud[turned[i]], size)
        stride = strides[i] if i < len(strides) else None
        points = clouds.ptr if i == 0 else _count(
            cloud, mask, clouds.ptr.numel() - 1)
        levels.append(
            _level(size, stride, points, index, inverse, mask, group,
                   turned[i], virtual))
        if stride is None:
            break
        cloud = cloud[::stride]
        filled = mask.view(-1, stride).any(1)
        mask = torch.ones_like(filled) if virtual == 'copy' else filled
        inverse = torch.nonzero(mask).view(-1)
        group = None if len(inverse) == len(mask) else inverse
        index = (mask.cumsum(0) - 1).clamp(min=0)
    return kind(pos, clouds.batch, tuple(levels), virtual=virtual)


def _level(
    size: int,
    stride: int | None,
    ptr: Tensor,
    index: Tensor,
    inverse: Tensor,
    mask: Tensor,
    group: Tensor | None,
    turned: Tensor | None,
    virtual: str,
) -> Level:
    hide = virtual == 'masked' and not bool(mask.all())
    visible = mask if hide else None
    if turned is None:
        return Level(size, stride, ptr, (index, ), (inverse, ), visible,
                     group)
    place = torch.empty_like(turned)
    place[turned] = torch.arange(len(turned), device=turned.device)
    masks = (visible, visible[turned]) if visible is not None else None
    slots = None
    if virtual == 'copy':
        slots = (torch.arange(len(turned), device=turned.device), turned)
    return Level(size, stride, ptr, (index, index[turned]),
                 (inverse, place[inverse]), visible, group, masks, slots)


def _count(cloud: Tensor, mask: Tensor, num_clouds: int) -> Tensor:
    sizes = torch.bincount(cloud[mask], minlength=num_clouds)
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def _check_mask(mask: Tensor | None, index: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(index, dtype=torch.bool)
    if mask.dtype != torch.bool or mask.shape != index.shape:
        raise ValueError(
            f"Expected 'mask' to be boolean with one entry per slot, "
            f"{list(index.shape)} (got {mask.dtype}, {list(mask.shape)})")
    return mask


def _check_permutation(index: Tensor, mask: Tensor, num_points: int) -> None:
    inside = bool(((index >= 0) & (index < num_points)).all())
    if inside:
        counts = torch.bincount(index[mask], minlength=num_points)
        inside = bool((counts == 1).all())
    if not inside:
        raise ValueError(f"Expected 'index[mask]' to be a permutation of the "
                         f"{num_points} points (got something else)")


def _check_rotated(
    rotated: Sequence[Tensor] | None,
    index: Tensor,
    num_levels: int,
    strides: list[int],
) -> list[Tensor | None]:
    if rotated is None:
        return [None] * num_levels
    if len(rotated) != num_levels:
        raise ValueError(f"Expected 'rotated' to have one permutation per "
                         f"level, {num_levels} (got {len(rotated)})")
    slots = index.numel()
    for i, order in enumerate(rotated):
        everyone = torch.arange(slots, device=index.device)
        if order.dim() != 1 or not torch.equal(order.sort().values.long(),
                                               everyone):
            raise ValueError(f"Expected 'rotated[{i}]' to be a permutation "
                             f"of the level's {slots} slots (got something "
                             f"else)")
        slots //= strides[i] if i < len(strides) else 1
    return [order.long() for order in rotated]


def _check_balls(cloud: Tensor, size: int) -> None:
    if cloud.numel() % size:
        raise ValueError(f"Expected 'ball_size' to divide the number of "
                         f"slots, {cloud.numel()} (got {size})")
    balls = cloud.view(-1, size)
    if not bool((balls == balls[:, :1]).all()):
        raise ValueError(f"Expected each ball of 'index' to hold points of "
                         f"one cloud (got balls of size {size} that mix "
                         f"clouds)")
