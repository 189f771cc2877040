r"""Checks and timings on a GPU, with torch, PyG, einops and numpy alone."""
