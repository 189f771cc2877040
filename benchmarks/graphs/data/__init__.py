r"""Tasks on graphs."""

from benchmarks.graphs.data.drawn import (
    RingTransferData,
    SBMClusteringData,
    TreeNeighborsMatchData,
)
from benchmarks.graphs.data.graphs import Graphs
from benchmarks.graphs.data.ogb_data import OGBData
from benchmarks.graphs.data.task import SPLITS, Task

__all__ = ['SPLITS', 'Graphs', 'OGBData', 'RingTransferData',
           'SBMClusteringData', 'Task', 'TreeNeighborsMatchData']
