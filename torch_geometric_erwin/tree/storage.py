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
- :obj:`ball_tree_{level}_{orientation}_place`, shape :math:`(\text{balls},
  \text{ball\_size}, D)`: in a periodic cell, where points lay in their balls;
- :obj:`ball_tree_box`, shape :math:`(B, D)` or :math:`(B, D, D)`: the
  periodic cells;
- :obj:`ball_tree_point`, shape :math:`(\text{points})`: the number of each
  point, and :obj:`ball_tree_check`, shape :math:`(B, 2)`: sums of hashes of
  positions. They tell whether points still come in their order;
- :obj:`ball_tree_at_{attr}`, shape :math:`(B)`: zeros. Its name tells which
  attribute holds the positions, where that is not :obj:`pos`;
- :obj:`ball_tree_built_{completion}_{rotations}`, shape :math:`(B)`: zeros.
  Its name tells how the tree was built; :obj:`{completion}-principal` along
  principal axes.
"""

import re
from ast import literal_eval
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from torch_geometric_erwin.ops.build_tree.orientation import (
    FARTHEST,
    in_range,
)
from torch_geometric_erwin.tree.build import in_box
from torch_geometric_erwin.tree.offsets import with_places
from torch_geometric_erwin.tree.structure import Level, Structure, TreeT

SIZES = 'ball_tree_sizes'
BOX = 'ball_tree_box'
AT = 'ball_tree_at_'
BUILT = 'ball_tree_built_'
POINT = 'ball_tree_point'
CHECK = 'ball_tree_check'
PATTERN = re.compile(r'ball_tree_(\d+)_(by_)?(\d+)(_place)?')

CURE = ("Let 'AddBallTree' come after what reorders, adds or drops points, "
        "or build the tree again")


def write_tree(tree: Structure, data: Any, attr: str = 'pos') -> Any:
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
    tensors = _tensors(with_places(tree))
    if pos is None:
        pos = tree.pos
    ones = torch.ones_like(tree.ptr[1:])
    tensors[CHECK] = (hashes(pos, tree.ptr, batch), ones)
    if attr != 'pos':
        tensors[AT + attr] = (torch.zeros_like(ones), ones)
    if tree.rotations is not None:
        how = f'{tree.completion}'
        if tree.axes == 'principal':
            how += '-principal'
        name = f'{BUILT}{how}_{tree.rotations!r}'
        tensors[name] = (torch.zeros_like(ones), ones)
    for key, (value, rows) in tensors.items():
        data[key] = value
        _note_slices(data, key, rows)
    return data


def remove_tree(data: Any) -> None:
    r"""Deletes a tree that :obj:`data` holds."""
    for key in list(data.keys()):
        if key in (SIZES, BOX, POINT, CHECK) or (
                key.startswith((AT, BUILT)) or PATTERN.fullmatch(key)):
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


def _tensors(tree: Structure) -> dict[str, tuple[Tensor, Tensor]]:
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
            if level.place is not None:
                at = level.place[j].view(-1, level.ball_size,
                                         tree.pos.size(1))
                tensors[f'ball_tree_{i}_{j}_place'] = (at, balls)
        if i > 0:
            last = tree.levels[i - 1]
            group = _groups(level) - _group_starts(level.ptr, _balls(last),
                                                   last, level.num_points)
            tensors[f'ball_tree_{i}_by_{last.stride}'] = (group.int(), points)
    tensors[SIZES] = (torch.stack(sizes, dim=1), ones)
    number = torch.arange(tree.num_points, device=tree.device)
    number = number - tree.ptr[tree.batch]
    tensors[POINT] = (number.int(), tree.ptr.diff())
    if tree.box is not None:
        tensors[BOX] = (tree.box.detach().clone(), ones)
    return tensors


def hashes(pos: Tensor, ptr: Tensor, batch: Tensor) -> Tensor:
    r"""Returns two numbers for each cloud: one that does not depend on the
    order of its points and one that does, shape :math:`(B, 2)`.
    """
    types = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = pos.detach().contiguous() + 0.  # there is no negative zero
    rows = bits.view(types[pos.element_size()]).long()
    mixed = torch.zeros_like(batch)
    for column in rows.unbind(1):
        mixed = (mixed ^ column) * 0x2545F4914F6CDD1D
        mixed = mixed ^ (mixed >> 29)
    number = torch.arange(len(batch), device=batch.device) - ptr[batch]
    both = torch.stack([mixed, mixed * (2 * number + 1)], dim=1)
    total = both.new_zeros(ptr.numel() - 1, 2)
    return total.index_add_(0, batch, both)


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


def read_tree(kind: type[TreeT], data: Any) -> TreeT:
    r"""See :meth:`BallTree.from_data`."""
    if SIZES not in data:
        raise ValueError("Expected 'data' to hold a ball tree (got none: "
                         "use the 'AddBallTree' transform, or "
                         "'BallTree.build')")
    pos = stored_positions(data)
    sizes = data[SIZES]
    indices, groups, places = _parse(data)
    ptrs = torch.cat([sizes.new_zeros(1, sizes.size(1)),
                      sizes[:, :, 0].cumsum(0)])
    _check(ptrs[-1, 0] == pos.size(0),
           f"Expected 'data' to have the points that its ball tree was "
           f"built for (got {pos.size(0)} points). {CURE}")
    batch = torch.repeat_interleave(
        torch.arange(len(sizes), device=pos.device), sizes[:, 0, 0],
        output_size=pos.size(0))
    _check_points(data, pos, ptrs[:, 0], batch)
    levels: list[Level] = []
    for i, index in enumerate(indices):
        balls = sizes[:, i, 1]
        _check(balls.sum() == index[0].size(0),
               f"Expected 'data' to hold a whole ball tree (got balls that "
               f"its sizes do not count). {CURE}")
        stride = groups[i + 1][0] if i + 1 < len(indices) else None
        group, points = None, pos.size(0)
        if i > 0:
            local = groups[i][1].long()
            points = local.numel()
            if points != levels[-1].num_slots // groups[i][0]:
                group = local + _group_starts(ptrs[:, i], sizes[:, i - 1, 1],
                                              levels[-1], points)
        level = _read_level(index, stride, ptrs[:, i], balls, points, group)
        if i in places:
            level = replace(level, place=tuple(
                place.flatten(0, 1) for place in places[i]))
        levels.append(level)
    tree = kind(pos, batch, tuple(levels), **_how_it_was_built(data))
    box = data.get(BOX)
    return tree if box is None else in_box(tree, box)


def _how_it_was_built(data: Any) -> dict[str, Any]:
    for key in data.keys():  # noqa: SIM118
        if key.startswith(BUILT):
            how, _, text = key.removeprefix(BUILT).partition('_')
            completion, _, axes = how.partition('-')
            return {'rotations': literal_eval(text), 'completion': completion,
                    'axes': axes or 'coordinate'}
    return {}


def _check_points(data: Any, pos: Tensor, ptr: Tensor,
                  batch: Tensor) -> None:
    r"""Checks that points are those that the tree was built for, in their
    order, and in the clouds that :obj:`data` says. They may have moved.
    """
    number = torch.arange(len(pos), device=pos.device)
    if POINT in data:
        _check((data[POINT] == number - ptr[batch]).all(),
               f"Expected 'data' to have its points in the order in which "
               f"its ball tree was built (got another order, or other "
               f"points). {CURE}")
    if CHECK in data:
        same, order = (hashes(pos, ptr, batch) == data[CHECK]).unbind(1)
        _check((order | ~same).all(),
               f"Expected 'data' to have its positions in the order in which "
               f"its ball tree was built (got the same positions in another "
               f"order). {CURE}")
    _check(in_range(pos), f"Expected 'pos' to have finite coordinates of at "
           f"most {FARTHEST:g} (got others)")
    known = data.get('batch')
    if known is not None and len(known) == len(batch):
        _check((known == batch).all(),
               f"Expected 'data' to have the clouds that its ball tree was "
               f"built for (got another 'batch'). {CURE}")
    elif 'node_type' in data and len(ptr) > 2:
        raise ValueError(f"Expected 'data' to be one cloud (got the trees of "
                         f"{len(ptr) - 1} node types). {CURE}")


def _parse(data: Any) -> tuple[list[list[Tensor]], dict, dict]:
    r"""Collects each level's orientations, its stride and groups, and in a
    periodic cell the places in balls.
    """
    indices: list[list[Tensor]] = []
    groups: dict[int, tuple[int, Tensor]] = {}
    places: dict[int, list[Tensor]] = {}
    found = [PATTERN.fullmatch(key) for key in data.keys()]  # noqa: SIM118
    matches = sorted((match for match in found if match), key=lambda match:
                     (int(match[1]), int(match[3])))
    for match in matches:
        level, value = int(match[1]), data[match[0]]
        if match[4]:
            places.setdefault(level, []).append(value)
        elif match[2]:
            groups[level] = (int(match[3]), value)
        else:
            if level == len(indices):
                indices.append([])
            indices[level].append(value)
    return indices, groups, places


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
        inverse.append(_invert(point, mask, num_points))
    if slots == num_points:
        return Level(ball_size, stride, ptr, tuple(full), tuple(inverse),
                     None, group)
    return Level(ball_size, stride, ptr, tuple(full), tuple(inverse),
                 masks[0], group, tuple(masks))


def _invert(point: Tensor, mask: Tensor, num_points: int) -> Tensor:
    r"""Returns the slot of each point, and checks that it has one."""
    inside = (point >= 0) & (point < num_points)
    target = torch.where(mask & inside, point, num_points)  # others: dropped
    where = point.new_full((num_points + 1, ), -1)
    where[target] = torch.arange(len(point), device=point.device)
    where = where[:num_points]
    _check(inside.all() & (where >= 0).all() & (mask.sum() == num_points),
           f"Expected 'data' to hold a ball tree with one slot for each "
           f"point (got points that have several, or none). {CURE}")
    return where


def _check(condition: Tensor, message: str) -> None:
    r"""Raises; on a GPU, without waiting for it."""
    if condition.device.type == 'cpu':
        if not bool(condition):
            raise ValueError(message)
    else:
        torch._assert_async(condition, message)
