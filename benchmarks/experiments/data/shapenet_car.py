from typing import Any

from torch_geometric.data import Data

from benchmarks.experiments.data.field_clouds import (
    FieldClouds,
    Units,
    hold_out,
)
from torch_geometric_erwin.datasets import ShapeNetCar


class ShapeNetCarData(FieldClouds):
    r"""The pressure on the surface of the cars of
    :class:`~torch_geometric_erwin.datasets.ShapeNetCar`, from where its
    points lie, with the means and standard deviations of the benchmark. Sides
    of quads are kept as :obj:`edge_index` where the files have them.

    The benchmark has no validation cars: the last of the 700 to train on are
    held out. They are of the last folders; results are those of fewer cars
    to train on than in the paper.

    Args:
        root (str, optional): The folder that holds the cars.
            (default: :obj:`"runs/data/shapenet_car"`)
        num_val (int, optional): Number of cars to hold out.
            (default: :obj:`70`)
        preprocessed (bool, optional): Whether to read the preprocessed files.
            (default: if there are no others)
        **kwargs (optional): Arguments of :class:`FieldClouds`.

    Raises:
        ValueError: When files are read, which is before training: if no car
            is left to train or validate on, or if the dataset says so.
        FileNotFoundError: If a file does not exist when files are read.
    """
    def __init__(
        self,
        root: str = 'runs/data/shapenet_car',
        num_val: int = 70,
        preprocessed: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.num_val = num_val
        self.preprocessed = preprocessed

    def load_fields(self) -> dict[str, list[Data]]:
        train, test = (
            list(ShapeNetCar(self.root, split, preprocessed=self.preprocessed))
            for split in ('train', 'test'))
        return {**hold_out(train, self.num_val), 'test': test}

    def known_units(self) -> Units:
        return ShapeNetCar.normalization()
