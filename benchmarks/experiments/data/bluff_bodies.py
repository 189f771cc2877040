from typing import Any

from torch_geometric.data import Data

from benchmarks.experiments.data.field_clouds import FieldClouds
from torch_geometric_erwin.datasets import BluffBodies


class BluffBodiesData(FieldClouds):
    r"""The pressure coefficients of
    :class:`~torch_geometric_erwin.datasets.BluffBodies`, from where the
    points of their surface lie, in m, and which way it faces. Sides of
    panels are kept as :obj:`edge_index`. The flow around what a mirror shows
    of bodies, with left and right swapped, is what it shows of the flow.

    Args:
        root (str, optional): Where to keep the clouds.
            (default: :obj:`"runs/data/bluff_bodies"`)
        num_train (int, optional): Number of flows to train on.
            (default: :obj:`256`)
        num_val (int, optional): Number of flows to validate on.
            (default: :obj:`32`)
        num_test (int, optional): Number of flows to test on.
            (default: :obj:`64`)
        num_points (int, optional): See the dataset, as for the options that
            follow. (default: :obj:`3600`)
        num_bodies (int or tuple, optional): (default: :obj:`1`)
        ground (bool, optional): (default: :obj:`True`)
        data_seed (int, optional): Another one makes other clouds.
            (default: :obj:`0`)
        **kwargs (optional): Arguments of :class:`FieldClouds`.
    """
    mirror_axis = 1

    def __init__(
        self,
        root: str = 'runs/data/bluff_bodies',
        num_train: int = 256,
        num_val: int = 32,
        num_test: int = 64,
        num_points: int = 3600,
        num_bodies: int | tuple[int, int] = 1,
        ground: bool = True,
        data_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.sizes = {'train': num_train, 'val': num_val, 'test': num_test}
        self.options: dict[str, Any] = {
            'num_points': num_points, 'num_bodies': num_bodies,
            'ground': ground, 'seed': data_seed,
        }

    def load_fields(self) -> dict[str, list[Data]]:
        return {
            split: list(BluffBodies(self.root, split, num_clouds,
                                    **self.options))
            for split, num_clouds in self.sizes.items()
        }
