r"""Point clouds whose physics is long-ranged."""

from torch_geometric_erwin.datasets.cosmology import Cosmology
from torch_geometric_erwin.datasets.galaxy_mock import GalaxyMock
from torch_geometric_erwin.datasets.halo_mock import HaloMock
from torch_geometric_erwin.datasets.linear_theory import LinearTheory
from torch_geometric_erwin.datasets.md_trajectory import MDTrajectory

__all__ = ['Cosmology', 'GalaxyMock', 'HaloMock', 'LinearTheory',
           'MDTrajectory']
