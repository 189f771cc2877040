r"""Networks that need the package :obj:`neuraloperator`."""

import importlib
from typing import Any

import pytest
import torch


def operator(name: str, *args: Any, **kwargs: Any) -> torch.nn.Module:
    r"""Makes an FNO or a GINO, or skips the test without the package."""
    pytest.importorskip('neuralop')
    module = importlib.import_module(
        f'benchmarks.experiments.nets.{name.lower()}')
    return getattr(module, name)(*args, **kwargs)
