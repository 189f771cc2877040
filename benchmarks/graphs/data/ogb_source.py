r"""Where datasets of OGB are, and what OGB says about them."""

import os.path as osp
from collections.abc import Iterable
from typing import Any, Literal

import pandas as pd
import torch

from benchmarks.graphs.data.conformers import Conformers, Structure
from benchmarks.graphs.data.fetch import Archive, keep, provide
from benchmarks.graphs.data.molecules import OFFLINE
from benchmarks.graphs.data.ogb_tasks import LOSSES
from benchmarks.graphs.data.pcqm4mv2 import (
    PCQM,
    PCQM_NAME,
    SDF_URL,
    DFTStructures,
    choose_splits,
)
from torch_geometric_erwin.datasets.ogb_guard import quiet_import

with quiet_import():
    from ogb import graphproppred, nodeproppred

Pos = Literal['dft', 'rdkit']


def find_info(name: str) -> dict[str, Any]:
    r"""Returns what OGB says about a dataset."""
    if name == PCQM_NAME:
        return PCQM
    module = nodeproppred if name.startswith('ogbn-') else graphproppred
    path = osp.join(osp.dirname(str(module.__file__)), 'master.csv')
    table = pd.read_csv(path, index_col=0, keep_default_na=False)
    table = table.loc[:, [
        table[column]['task type'] in LOSSES
        and table[column].get('is hetero') != 'True' for column in table]]
    if name not in table:
        known = [PCQM_NAME, *OFFLINE, *table.columns]
        raise ValueError(f"Expected 'name' to be one of {known} or "
                         f"'meta_dict' to be given (got {name!r})")
    return table[name].to_dict()


def find_folder(name: str, root: str, info: dict[str, Any], public: bool,
                download: bool) -> str:
    r"""Returns where a dataset is, after fetching it if need be."""
    if not public:
        return str(info['dir_path'])
    folder = osp.join(root, name if name == PCQM_NAME
                      else name.replace('-', '_'))
    if osp.exists(f'{folder}_pyg'):
        folder = f'{folder}_pyg'  # of older versions of OGB
    files = info.get('files') or (
        'raw/data.npz' if info['binary'] == 'True' else 'raw/edge.csv.gz', )
    files = (f'RELEASE_v{info["version"]}.txt', *files)
    provide(Archive(info['url'], root, info['download_name'], folder, files),
            download)
    return folder


def find_structures(pos: Pos | None, folder: str, root: str,
                    num_workers: int,
                    download: bool) -> Iterable[Structure] | None:
    r"""Returns the structures of molecules, one after the other."""
    if pos is None:
        return None
    path = (osp.join(folder, 'raw', 'data.csv.gz')
            if osp.basename(folder) == PCQM_NAME
            else osp.join(folder, 'mapping', 'mol.csv.gz'))
    if not osp.isfile(path):
        raise ValueError(f"Expected a dataset of molecules, '{path}', for "
                         f"'pos' to be {pos!r} (got none)")
    smiles = pd.read_csv(path)['smiles'].tolist()
    if pos == 'rdkit':
        return Conformers(smiles, num_workers=num_workers)
    split = torch.load(osp.join(folder, 'split_dict.pt'))
    sdf = osp.join(root, 'pcqm4m-v2-train.sdf')
    if not osp.isfile(sdf):  # nobody has unpacked it
        sdf = keep(SDF_URL, root, download)
    return DFTStructures(smiles, split['train'],
                         choose_splits(split)['train'], sdf, num_workers)
