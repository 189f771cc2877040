r"""Linear layers and what surrounds them, fused."""
