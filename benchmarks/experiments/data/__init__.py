r"""Clouds of points to learn from."""

from benchmarks.experiments.data.halo_mock import HaloMockData
from benchmarks.experiments.data.md_trajectory import MDTrajectoryData
from benchmarks.experiments.data.point_clouds import PointClouds

__all__ = ['HaloMockData', 'MDTrajectoryData', 'PointClouds']
