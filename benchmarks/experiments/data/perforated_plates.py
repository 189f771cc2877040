from typing import Any

from torch_geometric.data import Data

from benchmarks.experiments.data.field_clouds import FieldClouds
from torch_geometric_erwin.datasets import PerforatedPlates


class PerforatedPlatesData(FieldClouds):
    r"""The von Mises stress of
    :class:`~torch_geometric_erwin.datasets.PerforatedPlates`, in units of the
    tension, from where points lie. Sides of triangles are kept as
    :obj:`edge_index`. The stress in what a mirror shows of plates, with left
    and right swapped, is what it shows of the stress.

    Args:
        root (str, optional): Where to keep the clouds.
            (default: :obj:`"runs/data/plates"`)
        num_train (int, optional): Number of plates to train on.
            (default: :obj:`512`)
        num_val (int, optional): Number of plates to validate on.
            (default: :obj:`64`)
        num_test (int, optional): Number of plates to test on.
            (default: :obj:`128`)
        num_points (int, optional): See the dataset, as for the options that
            follow. (default: :obj:`972`)
        num_holes (int or tuple, optional): (default: :obj:`1`)
        data_seed (int, optional): Another one makes other clouds.
            (default: :obj:`0`)
        **kwargs (optional): Arguments of :class:`FieldClouds`.
    """
    mirror_axis = 0
    mirror_at = 0.5

    def __init__(
        self,
        root: str = 'runs/data/plates',
        num_train: int = 512,
        num_val: int = 64,
        num_test: int = 128,
        num_points: int = 972,
        num_holes: int | tuple[int, int] = 1,
        data_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.sizes = {'train': num_train, 'val': num_val, 'test': num_test}
        self.options: dict[str, Any] = {
            'num_points': num_points, 'num_holes': num_holes,
            'seed': data_seed,
        }

    def load_fields(self) -> dict[str, list[Data]]:
        return {
            split: list(PerforatedPlates(self.root, split, num_clouds,
                                         **self.options))
            for split, num_clouds in self.sizes.items()
        }
