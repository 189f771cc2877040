r"""The authors' model and ours, side by side: same weights, same tree.

git clone https://github.com/maxxxzdn/erwin
pip install balltree-erwin
python -m tests.nn.models.parity erwin            # compare
python -m tests.nn.models.parity erwin --write    # renew the golden file
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from torch_geometric_erwin import BallTree, ErwinTransformer, knn_graph

GOLDEN = Path(__file__).with_name('golden.pt')
TREES = Path(__file__).with_name('golden_trees.pt')


def load_theirs(path: str) -> tuple[Any, Any]:
    r"""Returns the authors' model class and tree builder."""
    # Imported there, called only where no edges are given:
    sys.modules.setdefault('torch_cluster', ModuleType('torch_cluster'))
    sys.path.insert(0, path)
    try:
        from balltree import build_balltree_with_rotations
        from models.erwin import ErwinTransformer as Theirs
    finally:
        sys.path.remove(path)
    return Theirs, build_balltree_with_rotations


def make_config(dim: int, strides: list[int], ball_sizes: list[int],
                **kwargs: Any) -> dict[str, Any]:
    levels = len(ball_sizes)
    width = [8]
    for stride in strides:
        width.append(width[-1] * (2 if stride > 1 else 1))
    heads = [2] * levels
    config = {'c_in': 3, 'c_hidden': width, 'ball_sizes': ball_sizes,
              'strides': strides, 'enc_num_heads': heads,
              'enc_depths': [2] * levels, 'dec_num_heads': heads[:-1],
              'dec_depths': [2] * (levels - 1), 'rotate': 45, 'mlp_ratio': 2,
              'dimensionality': dim, 'mp_steps': 1}
    return {**config, **kwargs}


def run_theirs(theirs: tuple[Any, Any], config: dict[str, Any],
               sizes: list[int], training: bool = False) -> dict[str, Any]:
    r"""Applies the authors' model with random weights to random clouds."""
    torch.manual_seed(0)
    model = theirs[0](**config).double().train(training)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand if 'running' in name else torch.randn
            value.add_(0.2 * noise(value.shape)).copy_(value.float())
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    pos = torch.rand(len(batch), config['dimensionality']).double()
    x = torch.randn(len(batch), config['c_in']).double().requires_grad_()
    index, mask, rotated = theirs[1](pos.float(), batch, config['strides'],
                                     config['ball_sizes'], config['rotate'])
    edge_index = knn_graph(pos, 4, batch)
    out = model(x, pos, batch, edge_index=edge_index, tree_idx=index,
                tree_mask=mask, tree_idx_rot=list(rotated))
    out = out if config.get('decode', True) else out[0]
    direction = torch.randn_like(out)
    out.backward(direction)
    grads = {k: torch.zeros_like(p) if p.grad is None else p.grad
             for k, p in model.named_parameters()}
    return {'config': config, 'weights': weights, 'x': x.detach(), 'pos': pos,
            'batch': batch, 'edge_index': edge_index, 'index': index,
            'mask': mask, 'rotated': list(rotated), 'training': training,
            'out': out.detach(), 'direction': direction, 'grad_x': x.grad,
            'grads': {**weights, **grads}}


def compare(run: dict[str, Any],
            dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, float]]:
    r"""Yields how far our outputs and gradients are from theirs: absolute,
    and relative to the largest one.
    """
    config = run['config']
    model = ErwinTransformer.from_official(run['weights'], **config)
    model.to(dtype).train(run['training'])
    tree = BallTree.from_permutation(
        run['pos'].to(dtype), run['batch'], run['index'], run['mask'],
        ball_size=config['ball_sizes'], strides=config['strides'],
        rotated=run['rotated'], virtual='copy')
    x = run['x'].to(dtype).requires_grad_()
    out = model(x, tree, run['edge_index'])
    out = out if config.get('decode', True) else out[0]
    yield 'output', (out - run['out']).abs().max().item()
    out.backward(run['direction'].to(dtype))
    assert x.grad is not None
    yield 'gradient of x', relative(x.grad, run['grad_x'])
    theirs = ErwinTransformer.from_official(run['grads'], **config)
    ours = [torch.zeros_like(p) if p.grad is None else p.grad
            for p in model.parameters()]
    yield 'gradient of weights', relative(
        torch.cat([g.flatten() for g in ours]),
        torch.cat([p.detach().flatten() for p in theirs.parameters()]))


def write_golden(theirs: tuple[Any, Any]) -> None:
    runs = []
    for dim in (2, 3):
        config = make_config(dim, [2, 4], [16, 8, 2], c_hidden=[4, 8, 8],
                             enc_depths=[2, 1, 2], dec_depths=[1, 2],
                             mlp_ratio=1)
        run = run_theirs(theirs, config, [37, 64, 20])
        for name in ('weights', 'grads'):  # one tensor, not hundreds
            names, values = zip(*run[name].items(), strict=True)
            flat = torch.cat([value.flatten() for value in values])
            run[name] = (list(names), [list(v.shape) for v in values],
                         flat.float())
        runs.append(run)
    torch.save(runs, GOLDEN)


def write_trees(build: Any) -> None:
    r"""Writes trees of the authors without virtual slots."""
    trees = []
    for dim, angle in ((2, 45.), (2, 30.), (3, 45.), (3, 30.)):
        torch.manual_seed(dim)
        pos, batch = torch.rand(256, dim), torch.zeros(256).long()
        index, mask, rotated = build(pos, batch, [2, 4], [16, 8, 2], angle)
        assert mask.all()
        trees.append({'pos': pos, 'angle': angle, 'index': index.short(),
                      'rotated': [order.short() for order in rotated]})
    torch.save(trees, TREES)


def read_golden(i: int) -> dict[str, Any]:
    run = torch.load(GOLDEN, weights_only=True)[i]
    for key in ('weights', 'grads'):
        names, shapes, flat = run[key]
        parts = flat.split([math.prod(shape) for shape in shapes])
        run[key] = {name: part.view(shape) for name, part, shape in
                    zip(names, parts, shapes, strict=True)}
    return run


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


CASES = [
    *((make_config(dim, [2, 2], [64, 64, 64]), sizes)
      for dim in (2, 3)
      for sizes in ([1000], [1024], [3388], [1000, 1024, 3388])),
    (make_config(3, [4, 2], [128, 64, 32], decode=False), [1000]),
    (make_config(3, [1], [256, 256]), [1000, 1024]),  # no coarsening
    (make_config(3, [4], [128, 64], mp_steps=0), [1000]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('official', help="a clone of the authors' code")
    parser.add_argument('--write', action='store_true')
    args = parser.parse_args()
    theirs = load_theirs(args.official)
    if args.write:
        write_golden(theirs)
        write_trees(theirs[1])
        return
    for config, sizes in CASES:
        for training in (False, True):
            run = run_theirs(theirs, config, sizes, training)
            print(f'{config["dimensionality"]}-D, {sizes}, strides '
                  f'{config["strides"]}, '
                  f'{"training" if training else "evaluation"}')
            for dtype in (torch.float32, torch.float64):
                print('   ', str(dtype)[6:], ', '.join(
                    f'{name}: {value:.1e}'
                    for name, value in compare(run, dtype)))


if __name__ == '__main__':
    main()
