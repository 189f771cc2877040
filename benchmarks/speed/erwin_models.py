r"""The authors' configuration of the model, ours and theirs.

Theirs is imported from a clone of https://github.com/maxxxzdn/erwin.
"""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tests.nn.models import parity
from torch_geometric_erwin import BallTree, ErwinTransformer

# What the authors' constructor is given. Heads are 16 wide.
CONFIG: dict[str, Any] = {
    'c_in': 16, 'c_hidden': [32, 64, 128, 256], 'ball_sizes': 4 * [256],
    'enc_num_heads': [2, 4, 8, 16], 'enc_depths': [2, 2, 6, 2],
    'dec_num_heads': [2, 4, 8], 'dec_depths': [2, 2, 2],
    'strides': [2, 2, 2], 'rotate': 45, 'mp_steps': 0}
# For trying things out.
TINY: dict[str, Any] = {
    **CONFIG, 'c_in': 3, 'c_hidden': [8, 16], 'ball_sizes': [16, 16],
    'enc_num_heads': [1, 2], 'enc_depths': [2, 2], 'dec_num_heads': [1],
    'dec_depths': [2], 'strides': [2]}


def num_blocks(config: dict[str, Any] = CONFIG) -> int:
    return sum(config['enc_depths']) + sum(config['dec_depths'])


def describe(config: dict[str, Any] = CONFIG) -> str:
    return (f"channels {config['c_hidden']}, balls of "
            f"{config['ball_sizes']}, strides {config['strides']}, blocks "
            f"{config['enc_depths']} and {config['dec_depths']} on the way "
            f"back, heads {config['enc_num_heads']}, rotation "
            f"{config['rotate']}°, no message passing")


def load_official(path: str) -> Any:
    r"""Returns the authors' model class. Where their tree builder is not
    installed, the model has to be given trees.
    """
    if 'balltree' not in sys.modules and find_spec('balltree') is None:
        stub = ModuleType('balltree')
        stub.build_balltree_with_rotations = None  # type: ignore
        sys.modules['balltree'] = stub
    with redirect_stdout(StringIO()):  # it says what is not installed
        return parity.load_theirs(path)[0]


def make_ours(config: dict[str, Any] = CONFIG) -> ErwinTransformer:
    r"""Our model as :meth:`ErwinTransformer.from_official` makes it, but
    with trees of the fewest balls.
    """
    torch.manual_seed(0)
    return ErwinTransformer(
        config['c_in'], config['c_hidden'], depths=config['enc_depths'],
        heads=config['enc_num_heads'], ball_sizes=config['ball_sizes'],
        strides=config['strides'], decoder_depths=config['dec_depths'],
        decoder_heads=config['dec_num_heads'],
        mp_steps=config['mp_steps'], rotations=(0., config['rotate']),
        signed=True)


def make_pair(path: str, config: dict[str, Any] = CONFIG, noise: float = 0.,
              ) -> tuple[ErwinTransformer, torch.nn.Module]:
    r"""Ours and the authors', with the same weights. Noise lets each of
    them show in the output.
    """
    torch.manual_seed(0)
    theirs = load_official(path)(**config)
    add_noise(theirs, noise)
    ours = ErwinTransformer.from_official(theirs.state_dict(), **config)
    ours.completion = 'balanced'
    return ours, theirs


@torch.no_grad()
def add_noise(model: torch.nn.Module, scale: float) -> None:
    for weight in model.parameters():
        weight.add_(scale * torch.randn_like(weight))


def cloud(num_points: int, config: dict[str, Any] = CONFIG,
          ) -> tuple[Tensor, Tensor]:
    r"""Features and positions, uniform in the unit cube."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(num_points, config['c_in'], generator=rng)
    return x, torch.rand(num_points, 3, generator=rng)


def gradients(model: torch.nn.Module, run: Callable[[], Tensor],
              ) -> Callable[[], Any]:
    r"""A step: forward and backward to all weights."""
    weights = list(model.parameters())
    return lambda: torch.autograd.grad(run().sum(), weights)


def their_tree(tree: BallTree) -> dict[str, Any]:
    r"""The tree as the authors' model takes it; it has to be full. Give a
    new list to each call: the model uses it up.
    """
    for i, level in enumerate(tree.levels):
        index = level.index[0]
        count = torch.arange(len(index), device=index.device)
        if level.mask is not None or (i > 0 and not index.equal(count)):
            raise ValueError("Expected 'tree' to have no virtual slots and "
                             "its points in order")
    index = tree.levels[0].index[0]
    return {'tree_idx': index,
            'tree_mask': torch.ones_like(index, dtype=torch.bool),
            'tree_idx_rot': [level.inverse[0][level.index[1]]
                             for level in tree.levels]}
