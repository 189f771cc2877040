import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

from benchmarks.experiments.optimized import Optimized
from torch_geometric_erwin.ops.distance import at_least_float


class Normalized(Optimized):
    r"""Networks that see and return numbers of order one, the units of the
    data around them, :attr:`UNITS`, which are kept in checkpoints: positions
    and boxes are divided by :obj:`length`. What :obj:`mean` and
    :obj:`scale` are of, derived classes say.

    Args:
        net (torch.nn.Module): Called with a batch; returns a row for every
            point.
        **kwargs: Arguments of :class:`Optimized`.
    """
    UNITS: tuple[str, ...] = 'mean', 'scale', 'length'

    mean: Tensor
    scale: Tensor
    length: Tensor

    def __init__(self, net: torch.nn.Module, **kwargs: float) -> None:
        super().__init__(net, **kwargs)
        for name in self.UNITS:
            zero = torch.zeros(()) if 'mean' in name else torch.ones(())
            self.register_buffer(name, zero)

    def setup(self, stage: str) -> None:
        r"""Takes over the units of the data.

        Raises:
            ValueError: If network and data do not fit each other.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None:
            self._check_fit(data)
            self._set_units(**{key: getattr(data, key) for key in self.UNITS})

    def _check_fit(self, data: Any) -> None:
        raise NotImplementedError

    def _check_channels(self, in_channels: int, out_channels: int) -> None:
        for name, want in (('in_channels', in_channels),
                           ('out_channels', out_channels)):
            got = getattr(self.net, name, want)
            if got not in (want, -1):
                raise ValueError(f"Expected 'net' to have '{name}' of {want} "
                                 f"for these data (got {got})")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        r"""Makes room for as many channels as the checkpoint has."""
        state = checkpoint['state_dict']
        self._set_units(**{key: state[key] for key in self.UNITS
                           if key in state})

    def _set_units(self, **units: float | Tensor) -> None:
        for key, value in units.items():
            value = torch.as_tensor(value)
            setattr(self, key, value.to(getattr(self, key), copy=True))

    def _run_net(self, data: Batch, channels: int) -> Tensor:
        data = copy.copy(data)
        data.pos = data.pos / self.length
        if 'box' in data:
            data.box = data.box / self.length
        out = self.net(data)
        if out.shape != (data.num_nodes, channels):
            raise ValueError(f"Expected 'net' to return shape "
                             f"{[data.num_nodes, channels]} "
                             f"(got {list(out.shape)})")
        return at_least_float(out)

    def _log_training(self, loss: Tensor, batch: Batch) -> Tensor:
        lr = self.trainer.optimizers[0].param_groups[0]['lr']
        self.log('train/loss', loss, prog_bar=True, batch_size=batch.num_nodes)
        self.log('train/lr', lr, batch_size=batch.num_nodes)
        return loss
