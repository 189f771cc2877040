from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.experiments.data.field_clouds import (
    FieldClouds,
    Units,
    hold_out,
)
from torch_geometric_erwin.datasets import PDEBenchmark


class PDEBenchmarkData(FieldClouds):
    r"""The fields of a :class:`~torch_geometric_erwin.datasets.PDEBenchmark`,
    from where points lie and, for plasticity, the shape of the die and the
    time, with the means and standard deviations of the benchmark; those it
    does not fix are measured. Sides of the grid are kept as
    :obj:`edge_index`.

    The benchmarks have no validation samples: the last ones to train on are
    held out, so that results are those of fewer than in the paper. All
    samples are held in memory, with one mesh.

    Args:
        root (str, optional): The folder that holds the benchmarks.
            (default: :obj:`"runs/data/pde"`)
        name (str, optional): :obj:`"airfoil"`, :obj:`"elasticity"`,
            :obj:`"pipe"` or :obj:`"plasticity"`.
            (default: :obj:`"airfoil"`)
        num_train (int, optional): Number of samples (dies) to train with,
            those to hold out among them. (default: that of the benchmark)
        num_val (int, optional): Number of samples (dies) to hold out.
            (default: :obj:`100`)
        num_test (int, optional): Number of samples (dies) to test with.
            (default: that of the benchmark)
        **kwargs (optional): Arguments of :class:`FieldClouds`.

    Raises:
        ValueError: If there is no such benchmark. When files are read, which
            is before training: if no sample is left to train or validate on,
            or if the dataset says so.
        FileNotFoundError: If a file does not exist when files are read.
    """
    def __init__(
        self,
        root: str = 'runs/data/pde',
        name: str = 'airfoil',
        num_train: int | None = None,
        num_val: int = 100,
        num_test: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.constants = PDEBenchmark.normalization(name)
        self.num_val = num_val
        self.options: dict[str, Any] = {
            'root': root, 'name': name, 'num_train': num_train,
            'num_test': num_test,
        }

    def load_fields(self) -> dict[str, list[Data]]:
        train, test = (
            PDEBenchmark(split=split, **self.options)
            for split in ('train', 'test'))
        held_out = self.num_val * train.num_steps
        return {**hold_out(read(train), held_out), 'test': read(test)}

    def known_units(self) -> Units:
        units = dict(self.constants)
        if 'x' in units:  # of the die; that of the time comes second
            times = torch.arange(20.)
            units['x'] = tuple(  # type: ignore[assignment]
                torch.cat([die, time.view(1)]) for die, time in zip(
                    units['x'], (times.mean(), times.std(correction=0)),
                    strict=True))
        return units


def read(dataset: PDEBenchmark) -> list[Data]:
    return [with_mesh(data, dataset.mesh) for data in dataset]


def with_mesh(data: Data, mesh: dict[str, Tensor]) -> Data:
    r"""Returns a sample that has the edges of all and knows its time."""
    out = Data(pos=data.pos, y=data.y)
    if 'time' in data:
        time = data.time.to(data.x).expand(len(data.x), 1)
        out.x = torch.cat([data.x, time], dim=1)
    if mesh:
        out.edge_index = mesh['edge_index']
    return out
