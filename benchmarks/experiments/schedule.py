r"""The learning rate over the course of training."""

import math


def warmup_cosine(progress: float, warmup: float) -> float:
    r"""Returns what to multiply the learning rate with: it rises linearly
    and falls to zero along a cosine.

    Args:
        progress: The part of training that is over, from zero to one.
        warmup: The part of training in which the rate rises.
    """
    progress = min(max(progress, 0.), 1.)
    if progress < warmup:
        return progress / warmup
    rest = (progress - warmup) / max(1. - warmup, 1e-12)
    return 0.5 * (1. + math.cos(math.pi * rest))
