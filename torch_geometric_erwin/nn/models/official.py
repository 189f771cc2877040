r"""Weights of the authors' code under the names that they have here."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from torch_geometric_erwin.nn.models.official_tree import official_rotations

FIRST = 'embed.embed_fn.weight'
NEEDED = ('c_in', 'c_hidden', 'ball_sizes', 'enc_num_heads', 'enc_depths',
          'dec_num_heads', 'dec_depths', 'strides', 'rotate')
DEFAULTS = {'decode': True, 'mlp_ratio': 4, 'dimensionality': 3,
            'mp_steps': 3}
# What is only renamed:
NAMES = [
    (r'embed\.embed_fn', 'embedding.lin'),
    (r'message_fns\.(\d+)\.2', r'\1.norm_message'),
    (r'update_fns\.(\d+)\.0', r'\1.lin_update'),
    (r'update_fns\.(\d+)\.1', r'\1.norm_update'),
    (r'embed\.mpnn', 'embedding.convs'),
    (r'BMSA\.proj', 'attn.lin_out'),
    (r'BMSA\.pe_proj', 'attn.lin_pos'),
    (r'swiglu\.w3', 'mlp.lin_out'),
    (r'pools\.(\d+)\.norm', r'pools.\1.norm.module.module'),
]

Weights = Iterator[tuple[str, Tensor]]


def from_official(kind: Callable[..., Any], state_dict: Mapping[str, Tensor],
                  config: Mapping[str, Any]) -> Any:
    r"""See :meth:`ErwinTransformer.from_official`."""
    config = _check_config(config)
    strides = list(config['strides'])
    model = kind(
        config['c_in'],
        config['c_hidden'][:len(strides) + 1],
        depths=config['enc_depths'],
        heads=config['enc_num_heads'],
        ball_sizes=config['ball_sizes'],
        strides=strides,
        decoder_depths=config['dec_depths'],
        decoder_heads=config['dec_num_heads'],
        mlp_ratio=config['mlp_ratio'],
        mp_steps=config['mp_steps'],
        dim=config['dimensionality'],
        decode=config['decode'],
        rotations=official_rotations(config['rotate'],
                                     config['dimensionality']),
        completion='perfect',
        signed=True,
    )
    theirs = _without_prefix(state_dict)
    model = model.to(theirs[FIRST].dtype)
    model.official = True
    ours = _join_gates(dict(_translate(theirs, strides, config)))
    problems = model.load_state_dict(ours, strict=False)
    if problems.missing_keys or problems.unexpected_keys:
        raise ValueError(
            f"Expected 'state_dict' to hold the weights of the authors' "
            f"model with these arguments (got none for "
            f"{problems.missing_keys} and unknown ones for "
            f"{problems.unexpected_keys})")
    return model


def _check_config(config: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in NEEDED if name not in config]
    unknown = [name for name in config
               if name not in NEEDED and name not in DEFAULTS]
    if missing or unknown:
        raise ValueError(f"Expected the arguments of the authors' "
                         f"constructor (got none for {missing} and unknown "
                         f"ones for {unknown})")
    return {**DEFAULTS, **config}


def _without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixes = [name[:-len(FIRST)] for name in state_dict
                if name.endswith(FIRST)]
    if len(prefixes) != 1:
        raise ValueError(f"Expected 'state_dict' to hold one '{FIRST}' (got "
                         f"{len(prefixes)})")
    start = len(prefixes[0])
    return {name[start:]: value for name, value in state_dict.items()
            if name.startswith(prefixes[0])}


def _translate(theirs: Mapping[str, Tensor], strides: list[int],
               config: Mapping[str, Any]) -> Weights:
    last = len(strides)
    for name, value in theirs.items():
        layer = re.match(r'(encoder|decoder)\.(\d+)\.(pool|unpool)?', name)
        if name.startswith('bottleneck.'):
            name = name.replace('bottleneck.', f'encoder.{last}.')
        elif layer:
            number = int(layer[2])
            if layer[1] == 'decoder':  # theirs begins with the coarsest
                number = last - 1 - number
            elif layer[3] and strides[number] == 1:
                continue  # never used
            kind = f'{layer[3]}s' if layer[3] else layer[1]
            name = f'{kind}.{number}.{name[layer.end():].lstrip(".")}'
        yield from _translate_weight(name, value, config)


def _join_gates(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    r"""Stacks the first two matrices of the feed-forward networks."""
    joined = {}
    for name, value in weights.items():
        if 'swiglu.w1' in name:
            other = weights.get(name.replace('w1', 'w2'))
            value = value if other is None else torch.cat([value, other])
            joined[name.replace('swiglu.w1', 'mlp.lin_in')] = value
        elif 'swiglu.w2' not in name:
            joined[name] = value
    return joined


def _translate_weight(name: str, value: Tensor,
                      config: Mapping[str, Any]) -> Weights:
    r"""Takes apart what is one matrix there and several here, or the other
    way round.
    """
    dim = config['dimensionality']
    if match := re.match(r'embed\.mpnn\.message_fns\.(\d+)\.0\.', name):
        conv = f'embedding.convs.{match[1]}'
        if name.endswith('bias'):
            yield f'{conv}.lin_src.bias', value
        else:
            width = value.size(0)
            parts = value.split([width, width, dim], dim=1)
            for part, weight in zip(('src', 'dst', 'edge'), parts,
                                    strict=True):
                yield f'{conv}.lin_{part}.weight', weight
    elif match := re.match(r'((?:un)?pools\.(\d+)\.)proj\.weight', name):
        width = config['strides'][int(match[2])] * dim
        yield f'{match[1]}lin.weight', value[:, :-width]
        yield f'{match[1]}lin_pos.weight', value[:, -width:]
    elif 'BMSA.sigma_att' in name:
        yield name.replace('BMSA.sigma_att', 'attn.sigma'), value.flatten()
    elif 'BMSA.qkv' in name:  # theirs alternate between the three
        value = value.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
        yield name.replace('BMSA.qkv', 'attn.lin_qkv'), value
    else:
        name = re.sub(r'(pools\.\d+)\.proj', r'\1.lin', name)
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        yield name, value
