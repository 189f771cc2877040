r"""Which points belong to which cloud."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_geometric_erwin.tree.checks import check_vector


class Clouds(NamedTuple):
    r"""How points are grouped into clouds.

    Args:
        batch: The cloud of each point, shape :math:`(N)`.
        ptr: Where each cloud begins once the points are sorted by cloud,
            shape :math:`(B + 1)`.
        order: The sorted points, shape :math:`(N)`; :obj:`None` if they are
            sorted already.
    """
    batch: Tensor
    ptr: Tensor
    order: Tensor | None


def find_clouds(pos: Tensor, batch: Tensor | None,
                ptr: Tensor | None) -> Clouds:
    r"""As :func:`group_clouds`, in compiled functions, too."""
    if not torch.compiler.is_compiling():
        return group_clouds(pos, batch, ptr)
    if batch is None and ptr is None:
        number = torch.arange(2, device=pos.device)
        return Clouds(number.new_zeros(pos.size(0)), number * pos.size(0),
                      None)
    return Clouds(*_opaque_clouds(pos.detach(), batch, ptr))


@torch.library.custom_op('torch_geometric_erwin::group_clouds',
                         mutates_args=())
def _opaque_clouds(pos: Tensor, batch: Tensor | None,
                   ptr: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    clouds = group_clouds(pos, batch, ptr)
    order = clouds.order
    if order is None:
        order = torch.arange(pos.size(0), device=pos.device)
    return clouds.batch.clone(), clouds.ptr.clone(), order


@_opaque_clouds.register_fake
def _fake_clouds(pos: Tensor, batch: Tensor | None,
                 ptr: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size() if ptr is None else (
        ptr.size(0))
    numbers = [pos.new_empty(n, dtype=torch.long)
               for n in (pos.size(0), size, pos.size(0))]
    return numbers[0], numbers[1], numbers[2]


def group_clouds(pos: Tensor, batch: Tensor | None,
                 ptr: Tensor | None) -> Clouds:
    r"""Checks and completes the batch vector or the offsets."""
    num_points = pos.size(0)
    if ptr is not None:
        return _from_ptr(pos, batch, ptr)
    if batch is None:
        batch = _on_device(np.zeros(num_points, dtype=np.int64), pos)
        ptr = _on_device(np.array([0, num_points], dtype=np.int64), pos)
        return Clouds(batch, ptr, None)
    check_vector(batch, 'batch', pos, num_points)
    batch = batch.long()
    if num_points == 0:
        return Clouds(batch, batch.new_zeros(1), None)
    if batch.device.type == 'cpu':
        is_sorted, low, high = _describe(batch.numpy())
    else:
        is_sorted = bool((batch[1:] >= batch[:-1]).all())
        low, high = torch.stack(batch.aminmax()).tolist()
    if low < 0:
        raise ValueError(f"Expected 'batch' to hold no negative number "
                         f"(got {low})")
    order = None if is_sorted else torch.sort(batch, stable=True).indices
    in_order = batch if order is None else batch[order]
    ptr = torch.searchsorted(
        in_order, torch.arange(high + 2, device=pos.device))
    return Clouds(batch, ptr, order)


def _on_device(array: np.ndarray, pos: Tensor) -> Tensor:
    r"""NumPy works on one thread; torch's would still be spinning when a
    builder starts its own.
    """
    out = torch.from_numpy(array)
    return out if pos.device.type == 'cpu' else out.to(pos.device)


def _describe(batch: np.ndarray) -> tuple[bool, int, int]:
    r"""Whether numbers are sorted, the least and the largest."""
    if bool((batch[1:] >= batch[:-1]).all()):
        return True, int(batch[0]), int(batch[-1])
    return False, int(batch.min()), int(batch.max())


def _from_ptr(pos: Tensor, batch: Tensor | None, ptr: Tensor) -> Clouds:
    num_points = pos.size(0)
    check_vector(ptr, 'ptr', pos)
    ptr = ptr.long()
    host = ptr.tolist()
    ends = (host[0], host[-1]) if host else None
    if ends != (0, num_points) or sorted(host) != host:
        raise ValueError(f"Expected 'ptr' to rise from 0 to the number of "
                         f"points, {num_points} (got {host})")
    sizes = np.diff(host)
    made = _on_device(np.repeat(np.arange(len(sizes)), sizes), pos)
    if batch is not None:
        check_vector(batch, 'batch', pos, num_points)
        if not torch.equal(batch.long(), made):
            raise ValueError("Expected 'batch' to be what 'ptr' says (got "
                             "another grouping of the points)")
    return Clouds(made, ptr, None)
