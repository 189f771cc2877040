r"""Small datasets in the folders that the archives of OGB unpack to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch_geometric.datasets import KarateClub

SPLIT = {'train': [0, 3, 4, 5, 6, 7], 'valid': [1, 8, 9], 'test': [2, 10, 11]}
SMILES = [
    'CCO', 'c1ccccc1O', 'CC(=O)O', 'CC(=O)Nc1ccc(O)cc1',
    'CN1C=NC2=C1C(=O)N(C)C(=O)N2C', 'C[C@H](N)C(=O)O', 'C/C=C/C',
    'CC(=O)Oc1ccccc1C(=O)O', 'C1CCCCC1', 'CC(=O)[O-].[Na+]', 'CCN(CC)CC',
    'C#N',
]


def write_csv(folder: Path, name: str, values: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(np.asarray(values)).to_csv(folder / f'{name}.csv.gz',
                                            index=False, header=False)


def write_raw(folder: Path, graphs: Sequence[Mapping[str, Any]],
              label_name: str, labels: Any, split_name: str,
              split: Mapping[str, Any] = SPLIT) -> None:
    r"""Writes what most archives hold."""
    raw = folder / 'raw'
    for key, name, axis in (('edge_index', 'edge', 1),
                            ('node_feat', 'node-feat', 0),
                            ('edge_feat', 'edge-feat', 0)):
        if key in graphs[0]:
            rows = np.concatenate([graph[key] for graph in graphs], axis)
            write_csv(raw, name, rows.T if axis else rows)
    write_csv(raw, 'num-node-list', [g['num_nodes'] for g in graphs])
    write_csv(raw, 'num-edge-list',
              [g['edge_index'].shape[1] for g in graphs])
    write_csv(raw, label_name, labels)
    for key, index in split.items():
        write_csv(folder / 'split' / split_name, key, index)
    (folder / 'RELEASE_v1.txt').touch()


def write_molecules(folder: Path, labels: Any,
                    smiles: Sequence[str] = SMILES) -> None:
    from benchmarks.graphs.data.smiles import to_graph

    graphs = [to_graph(text) for text in smiles]
    for graph in graphs:  # their files hold each bond once
        graph['edge_index'] = graph['edge_index'][:, ::2]
        graph['edge_feat'] = graph['edge_feat'][::2]
    write_raw(folder, graphs, 'graph-label', labels, 'scaffold')
    (folder / 'mapping').mkdir()
    pd.DataFrame({'smiles': smiles}).to_csv(
        folder / 'mapping' / 'mol.csv.gz', index=False)


def karate() -> dict[str, Any]:
    r"""Returns the members of a club and their ties, each once."""
    data = KarateClub()[0]
    edge_index = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    return {'edge_index': edge_index.numpy(), 'node_feat': data.x.numpy(),
            'num_nodes': data.num_nodes, 'label': data.y.view(-1, 1).numpy()}


def write_arxiv(folder: Path) -> None:
    graph = karate()
    write_raw(folder, [graph], 'node-label', graph['label'], 'time')
    write_csv(folder / 'raw', 'node_year', [[2020]] * 34)


def write_proteins(folder: Path) -> None:
    graph = karate()
    del graph['node_feat']
    rng = np.random.default_rng(0)
    graph['edge_feat'] = rng.random((graph['edge_index'].shape[1], 8))
    write_raw(folder, [graph], 'node-label', rng.integers(0, 2, (34, 112)),
              'species')
    write_csv(folder / 'raw', 'node_species', [[9606]] * 34)


def write_pcqm4mv2(folder: Path, smiles: Sequence[str] = SMILES) -> None:
    r"""Writes nine molecules with labels, then three without."""
    (folder / 'raw').mkdir(parents=True)
    gap = [*np.linspace(3, 9, 9), *[np.nan] * 3]
    pd.DataFrame({'idx': range(12), 'smiles': smiles, 'homolumogap': gap}
                 ).to_csv(folder / 'raw' / 'data.csv.gz', index=False)
    torch.save({'train': np.arange(6), 'valid': np.arange(6, 9),
                'test-dev': np.array([9]),
                'test-challenge': np.array([10, 11])},
               folder / 'split_dict.pt')
    (folder / 'RELEASE_v1.txt').touch()
