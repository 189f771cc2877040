from typing import Any

from benchmarks.experiments.data.field_clouds import Units
from benchmarks.experiments.data.unsteady_flows import UnsteadyFlows
from torch_geometric_erwin.datasets import EAGLE


class EAGLEData(UnsteadyFlows):
    r"""The windows of :class:`~torch_geometric_erwin.datasets.EAGLE`, as long
    as in the Erwin paper, and with the means and standard deviations of the
    benchmark.

    Args:
        root (str, optional): The folder that holds the simulations.
            (default: :obj:`"runs/data/eagle"`)
        **kwargs (optional): Arguments of :class:`UnsteadyFlows`.
    """
    def __init__(self, root: str = 'runs/data/eagle', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root

    def open(self, split: str, window: int, start: int | str) -> EAGLE:
        return EAGLE(self.root, split, window, start)

    def known_units(self) -> Units:
        return EAGLE.normalization()
