r"""A network, clouds and callbacks small enough to train in no time."""

import os
import signal
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import scatter

from benchmarks.experiments.data import PointClouds
from benchmarks.experiments.nets.graph import (
    neighbor_graph,
    relative_positions,
)


class TinyNet(torch.nn.Module):
    def __init__(self, in_channels: int = 2, out_channels: int = 3,
                 dropout: float = 0.) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.lin_x = torch.nn.Linear(in_channels, 8)
        self.lin_edge = torch.nn.Linear(3, 8)
        self.dropout = torch.nn.Dropout(dropout)
        self.lin_out = torch.nn.Linear(8, out_channels)

    def forward(self, data: Batch) -> Tensor:
        edge_index = neighbor_graph(data, 4)
        edge = self.lin_edge(relative_positions(data, edge_index)).tanh()
        edge = self.dropout(edge * self.lin_x(data.x)[edge_index[0]])
        return self.lin_out(scatter(edge, edge_index[1],
                                    dim_size=data.num_nodes))


class TinyClouds(PointClouds):
    r"""Clouds of 30 points whose targets are where neighbors are."""
    def __init__(self, num_train: int = 6, box: float | None = 2.,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_train = num_train
        self.box = box

    def load(self) -> dict[str, list[Data]]:
        generator = torch.Generator().manual_seed(0)
        return {
            split: [self.make(generator) for _ in range(num)]
            for split, num in (('train', self.num_train), ('val', 2),
                               ('test', 2))
        }

    def make(self, generator: torch.Generator) -> Data:
        edges = torch.rand(1, 3, generator=generator) + 0.5
        if self.box is not None:
            edges = edges * self.box
        data = Data(
            x=torch.randn(30, 2, generator=generator),
            pos=torch.rand(30, 3, generator=generator) * edges,
        )
        if self.box is not None:
            data.box = edges
        batch = Batch.from_data_list([data])
        edge_index = neighbor_graph(batch, 4)
        offset = relative_positions(batch, edge_index)
        weight = data.x[edge_index[0], :1]
        data.y = 10 * scatter(offset * weight, edge_index[1], dim_size=30)
        return data


def to_double(batch: Batch) -> Batch:
    return batch.apply(lambda x: x.double() if x.is_floating_point() else x)


class KillAt(Callback):
    r"""Kills the process after a number of steps."""
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
