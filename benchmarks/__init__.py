r"""Benchmarks of the package. They are not installed with it."""
