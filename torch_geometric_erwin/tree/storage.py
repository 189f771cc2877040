r"""Ball trees as plain tensors on PyG's data objects.

What is written counts points, slots and groups within each cloud, so PyG may
concatenate and cut it along the first dimension without adding anything:

- :obj:`ball_tree_sizes`, shape :math:`(B, L, 2)`: the points and balls of
  each cloud at each level;
- :obj:`ball_tree_{level}_{orientation}`, shape :math:`(\text{balls},
  \text{ball\_size})`: the point in each slot; of a virtual slot, minus one
  minus the point before it;
- :obj:`ball_tree_{level}_by_{stride}`, shape :math:`(\text{points})`: which
  group of :obj:`stride` slots of the level before each point stands for;
- :obj:`ball_tree_box`, shape :math:`(B, D)`: the periodic cells;
- :obj:`ball_tree_at_{attr}`, shape :math:`(B)`: zeros. Its name tells which
  attribute holds the positions, where that is not :obj:`pos`.
"""

import re
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from torch_geometric_erwin.tree.ball_tree import BallTree, Level
from torch_geometric_erwin.tree.build import wrap

SIZES = 'ball_tree_sizes'
BOX = 'ball_tree_box'
AT = 'ball_tree_at_'
PATTERN = re.compile(r'ball_tree_(\d+)_(by_)?(\d+)')


def write_tree(tree: BallTree, data: Any, attr: str = 'pos') -> Any:
    r"""See :meth:`BallTree.to_data`."""
    pos = data.get(attr)
    if pos is not None and pos.size(0) != tree.num_points:
        raise ValueError(f"Expected 'data' to have the tree's "
                         f"{tree.num_points} points (got {pos.size(0)})")
    if tree.virtual != 'masked':
        raise ValueError(f"Expected 'tree' to have virtual='masked' in order "
                         f"to be stored (got {tree.virtual!r})")
    if tree.mass is not None:
        raise ValueError("Expected 'tree' to be at its finest level in order "
                         "to be stored (got a coarser level)")
    batch = tree.batch
    if bool((batch[1:] < batch[:-1]).any()):
        raise ValueError("Expected 'batch' to be sorted in order to store "
                         "the tree (got clouds whose points do not follow "
                         "one another)")
    remove_tree(data)
    tensors = _tensors(tree)
    if attr != 'pos':
        ones = torch.ones_like(tree.ptr[1:])
        tensors[AT + attr] = (torch.zeros_like(ones), ones)
    for key, (value, rows) in tensors.items():
        data[key] = value
        _note_slices(data, key, rows)
    return data


def remove_tree(data: Any) -> None:
    r"""Deletes a tree that :obj:`data` holds."""
    for key in list(data.keys()):
        if key in (SIZES, BOX) or key.startswith(AT) or (
                PATTERN.fullmatch(key)):
            del data[key]


def stored_positions(data: Any) -> Tensor:
    r"""Returns the positions that the tree was built of."""
    names = [key.removeprefix(AT) for key in data.keys()  # noqa: SIM118
             if key.startswith(AT)]
    name = names[0] if names else 'pos'
    if name not in data or data[name] is None:
        raise ValueError(f"Expected 'data' to have the positions {name!r} "
                         f"that its ball tree was built for (got none)")
    return data[name]


def _tensors(tree: BallTree) -> dict[str, tuple[Tensor, Tensor]]:
    r"""Returns each tensor with each cloud's number of rows."""
    ones = torch.ones_like(tree.ptr[1:])
    sizes, tensors = [], {}
    for i, level in enumerate(tree.levels):
        points, balls = level.ptr.diff(), _balls(level)
        sizes.append(torch.stack([points, balls], dim=1))
        start = _slot_starts(level, balls)
        for j, index in enumerate(level.index):
            mask = level.mask if level.masks is None else level.masks[j]
            local = index - start
            if mask is not None:
                local = torch.where(mask, local, -1 - local)
            local = local.int().view(-1, level.ball_size)
            tensors[f'ball_tree_{i}_{j}'] = (local, balls)
        if i > 0:
            last = tree.levels[i - 1]
            group = _groups(level) - _group_starts(level.ptr, _balls(last),
                                                   last, level.num_points)
            tensors[f'ball_tree_{i}_by_{last.stride}'] = (group.int(), points)
    tensors[SIZES] = (torch.stack(sizes, dim=1), ones)
    if tree.box is not None:
        tensors[BOX] = (tree.box.clone(), ones)
    return tensors


def _balls(level: Level) -> Tensor:
    r"""Counts each cloud's balls."""
    first = level.index[0][::level.ball_size].contiguous()
    cloud = torch.searchsorted(level.ptr, first, right=True) - 1
    return torch.bincount(cloud, minlength=level.ptr.numel() - 1)


def _slot_starts(level: Level, balls: Tensor) -> Tensor:
    r"""Returns, for each slot, where its cloud's points begin."""
    return torch.repeat_interleave(level.ptr[:-1], balls * level.ball_size,
                                   output_size=level.num_slots)


def _groups(level: Level) -> Tensor:
    if level.group is not None:
        return level.group
    return torch.arange(level.num_points, device=level.ptr.device)


def _group_starts(ptr: Tensor, balls: Tensor, last: Level,
                  num_points: int) -> Tensor:
    r"""Returns, for each point of a level, where its cloud's groups of the
    level before begin.
    """
    assert last.stride is not None
    groups = balls * (last.ball_size // last.stride)
    return torch.repeat_interleave(groups.cumsum(0) - groups, ptr.diff(),
                                   output_size=num_points)


def _note_slices(data: Any, key: str, rows: Tensor) -> None:
    r"""Tells a `Batch` where to cut the tensor into single clouds."""
    parent = data._parent() if hasattr(data, '_parent') else data
    is_hetero = isinstance(parent, HeteroData)
    store = parent._global_store if is_hetero else parent._store
    slices, incs = (store.__dict__.get(name)
                    for name in ('_slice_dict', '_inc_dict'))
    if slices is None:
        return
    if is_hetero:
        slices, incs = slices[data._key], incs[data._key]
    slices[key] = torch.cat([rows.new_zeros(1), rows.cumsum(0)]).cpu()
    incs[key] = torch.zeros(len(rows), dtype=torch.long)


def read_tree(data: Any) -> BallTree:
    r"""See :meth:`BallTree.from_data`."""
    if SIZES not in data:
        raise ValueError("Expected 'data' to hold a ball tree (got none: "
                         "use the 'AddBallTree' transform, or "
                         "'BallTree.build')")
    pos = stored_positions(data)
    sizes = data[SIZES]
    indices, groups = _parse(data)
    ptrs = torch.cat([sizes.new_zeros(1, sizes.size(1)),
                      sizes[:, :, 0].cumsum(0)])
    _check(ptrs[-1, 0] == pos.size(0),
           f"Expected 'data' to have the points that its ball tree was "
           f"built for (got {pos.size(0)} points)")
    levels: list[Level] = []
    for i, index in enumerate(indices):
        balls = sizes[:, i, 1]
        _check(balls.sum() == index[0].size(0),
               "Expected 'data' to hold a whole ball tree (got balls that "
               "its sizes do not count)")
        stride = groups[i + 1][0] if i + 1 < len(indices) else None
        group, points = None, pos.size(0)
        if i > 0:
            local = groups[i][1].long()
            points = local.numel()
            if points != levels[-1].num_slots // groups[i][0]:
                group = local + _group_starts(ptrs[:, i], sizes[:, i - 1, 1],
                                              levels[-1], points)
        levels.append(
            _read_level(index, stride, ptrs[:, i], balls, points, group))
    box = data.get(BOX)
    batch = torch.repeat_interleave(
        torch.arange(len(sizes), device=pos.device), sizes[:, 0, 0],
        output_size=pos.size(0))
    if box is not None:
        pos = wrap(pos, box[batch])
    return BallTree(pos, batch, tuple(levels), box=box)


def _parse(data: Any) -> tuple[list[list[Tensor]], dict]:
    r"""Collects each level's orientations, and its stride and groups."""
    indices: list[list[Tensor]] = []
    groups: dict[int, tuple[int, Tensor]] = {}
    found = [PATTERN.fullmatch(key) for key in data.keys()]  # noqa: SIM118
    matches = sorted((match for match in found if match), key=lambda match:
                     (int(match[1]), int(match[3])))
    for match in matches:
        level, value = int(match[1]), data[match[0]]
        if match[2]:
            groups[level] = (int(match[3]), value)
            continue
        if level == len(indices):
            indices.append([])
        indices[level].append(value)
    return indices, groups


def _read_level(
    index: list[Tensor],
    stride: int | None,
    ptr: Tensor,
    balls: Tensor,
    num_points: int,
    group: Tensor | None,
) -> Level:
    ball_size = index[0].size(1)
    slots = index[0].numel()
    start = torch.repeat_interleave(ptr[:-1], balls * ball_size,
                                    output_size=slots)
    local = [item.flatten().long() for item in index]
    full = [torch.where(x < 0, -1 - x, x) + start for x in local]
    masks = [x >= 0 for x in local]
    inverse = []
    for point, mask in zip(full, masks, strict=True):
        target = torch.where(mask, point, num_points)  # virtual: dropped
        where = torch.empty(num_points + 1, dtype=torch.long,
                            device=ptr.device)
        where[target] = torch.arange(slots, device=ptr.device)
        inverse.append(where[:num_points])
    if slots == num_points:
        return Level(ball_size, stride, ptr, tuple(full), tuple(inverse),
                     None, group)
    return Level(ball_size, stride, ptr, tuple(full), tuple(inverse),
                 masks[0], group, tuple(masks))


def _check(condition: Tensor, message: str) -> None:
    r"""Raises; on a GPU, without waiting for it."""
    if condition.device.type == 'cpu':
        if not bool(condition):
            raise ValueError(message)
    else:
        torch._assert_async(condition, message)
