r"""Clouds of points to learn from."""

from benchmarks.experiments.data.bluff_bodies import BluffBodiesData
from benchmarks.experiments.data.clouds import Clouds
from benchmarks.experiments.data.eagle import EAGLEData
from benchmarks.experiments.data.field_clouds import FieldClouds
from benchmarks.experiments.data.halo_mock import HaloMockData
from benchmarks.experiments.data.md_trajectory import MDTrajectoryData
from benchmarks.experiments.data.moving_jet import MovingJetData
from benchmarks.experiments.data.pde_benchmark import PDEBenchmarkData
from benchmarks.experiments.data.perforated_plates import (
    PerforatedPlatesData,
)
from benchmarks.experiments.data.point_clouds import PointClouds
from benchmarks.experiments.data.shapenet_car import ShapeNetCarData
from benchmarks.experiments.data.unsteady_flows import UnsteadyFlows

__all__ = ['BluffBodiesData', 'Clouds', 'EAGLEData', 'FieldClouds',
           'HaloMockData', 'MDTrajectoryData', 'MovingJetData',
           'PDEBenchmarkData', 'PerforatedPlatesData', 'PointClouds',
           'ShapeNetCarData', 'UnsteadyFlows']
