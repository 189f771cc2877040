r"""Point clouds and meshes whose physics is long-ranged, and graphs whose
answers lie many hops away.
"""

from torch_geometric_erwin.datasets.bluff_bodies import BluffBodies
from torch_geometric_erwin.datasets.body_shapes import BodyShape
from torch_geometric_erwin.datasets.car_writer import write_shapenet_car
from torch_geometric_erwin.datasets.cosmology import Cosmology
from torch_geometric_erwin.datasets.eagle import EAGLE
from torch_geometric_erwin.datasets.galaxy_mock import GalaxyMock
from torch_geometric_erwin.datasets.halo_mock import HaloMock
from torch_geometric_erwin.datasets.lattice_boltzmann import LatticeBoltzmann
from torch_geometric_erwin.datasets.linear_theory import LinearTheory
from torch_geometric_erwin.datasets.md_trajectory import MDTrajectory
from torch_geometric_erwin.datasets.moving_jet import MovingJet
from torch_geometric_erwin.datasets.panel_method import potential_flow
from torch_geometric_erwin.datasets.pde_benchmark import PDEBenchmark
from torch_geometric_erwin.datasets.perforated_plates import PerforatedPlates
from torch_geometric_erwin.datasets.plane_stress import plane_stress
from torch_geometric_erwin.datasets.plate_writer import write_elasticity
from torch_geometric_erwin.datasets.ring_transfer import RingTransfer
from torch_geometric_erwin.datasets.sbm_clustering import SBMClustering
from torch_geometric_erwin.datasets.shapenet_car import ShapeNetCar
from torch_geometric_erwin.datasets.tree_neighbors_match import (
    TreeNeighborsMatch,
)

__all__ = ['EAGLE', 'BluffBodies', 'BodyShape', 'Cosmology', 'GalaxyMock',
           'HaloMock', 'LatticeBoltzmann', 'LinearTheory', 'MDTrajectory',
           'MovingJet', 'PDEBenchmark', 'PerforatedPlates', 'RingTransfer',
           'SBMClustering', 'ShapeNetCar', 'TreeNeighborsMatch',
           'plane_stress', 'potential_flow', 'write_elasticity',
           'write_shapenet_car']
