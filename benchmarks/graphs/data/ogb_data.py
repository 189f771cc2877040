from typing import Any, Literal

from benchmarks.graphs.data.graphs import Graphs
from benchmarks.graphs.data.task import Task


class OGBData(Graphs):
    r"""A dataset of the `Open Graph Benchmark <https://ogb.stanford.edu>`_,
    with its splits and its score. Needs :obj:`pip install ogb rdkit`.

    Args:
        name (str, optional): See
            :func:`~benchmarks.graphs.data.ogb.load_ogb`. The default is one
            that needs no network.
            (default: :obj:`"ogbg-molsulfonamide"`)
        root (str, optional): Where to keep datasets.
            (default: :obj:`"runs/data/ogb"`)
        structures (str, optional): Gives molecules positions in Ångström:
            :obj:`"rdkit"` for conformers or, of :obj:`"pcqm4m-v2"`,
            :obj:`"dft"`. (default: :obj:`None`)
        structure_workers (int, optional): Number of processes that make
            conformers. (default: :obj:`0`)
        download (bool, optional): If set to :obj:`False`, does not fetch what
            is missing. (default: :obj:`True`)
        **kwargs (optional): Arguments of :class:`Graphs`.

    Raises:
        ValueError: If positions would come from two places.
    """
    def __init__(
        self,
        name: str = 'ogbg-molsulfonamide',
        root: str = 'runs/data/ogb',
        structures: Literal['rdkit', 'dft'] | None = None,
        structure_workers: int = 0,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if structures is not None and self.positions is not None:
            raise ValueError(f"Expected either 'structures' or 'positions' to "
                             f"be given (got {structures!r} and "
                             f"{self.positions})")
        self.name = name
        self.root = root
        self.structures = structures
        self.structure_workers = structure_workers
        self.download = download

    def load(self) -> Task:
        # Only who asks for these data needs what they need.
        from benchmarks.graphs.data.ogb import load_ogb

        return load_ogb(self.name, self.root, pre_transform=self.positions,
                        pos=self.structures, download=self.download,
                        num_workers=self.structure_workers)
