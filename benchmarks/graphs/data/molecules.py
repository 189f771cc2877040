r"""A dataset of molecules in OGB's format that needs no network."""

import os.path as osp
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
from rdkit import RDConfig
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from benchmarks.graphs.data.ogb_writer import read_meta, write_ogb
from benchmarks.graphs.data.smiles import to_graph

OFFLINE: dict[str, dict[str, Any]] = {
    'ogbg-molsulfonamide': {
        'task_type': 'binary classification', 'metric': 'rocauc',
        'num_classes': 2},
    'ogbg-molsulfonamide-activity': {
        'task_type': 'regression', 'metric': 'rmse'},
}
ACTIVE = 7.  # an IC50 of 100 nM: a common bound for potent inhibitors


def write_ogb_molecules(
    root: str,
    name: str = 'ogbg-molsulfonamide',
) -> dict[str, Any]:
    r"""Writes 1,017 aryl sulfonamides and their measured activities as a
    dataset of OGB, unless that was done before, and returns what tells OGB's
    classes about it.

    The molecules come with RDKit, as the example of its Free-Wilson analysis
    (:obj:`CHEMBL2321810` of ChEMBL), with measured activities of 4.27 to
    9.22, which RDKit's text takes for pIC50. :obj:`"ogbg-molsulfonamide"`
    asks for which it is seven or more, that is, which are active at 100 nM or
    less, as 35 % are. :obj:`"ogbg-molsulfonamide-activity"` asks for the
    activity. They are split by scaffolds, as the molecules of OGB are.

    Args:
        root (str): Where to keep datasets.
        name (str, optional): One of the two.
            (default: :obj:`"ogbg-molsulfonamide"`)

    Raises:
        ValueError: If the name is none of the two.
        FileNotFoundError: If RDKit comes without its examples.
    """
    if name not in OFFLINE:
        raise ValueError(f"Expected 'name' to be one of {list(OFFLINE)} "
                         f"(got {name!r})")
    folder = osp.join(osp.abspath(osp.expanduser(root)),
                      name.replace('-', '_'))
    return read_meta(folder) or write_molecules(
        name, folder, read_sulfonamides())


def write_molecules(name: str, folder: str,
                    table: pd.DataFrame) -> dict[str, Any]:
    def write_mapping(mapping: str) -> None:
        table.to_csv(osp.join(mapping, 'mol.csv.gz'), index=False)

    labels = table[['activity']].to_numpy(np.float32)
    if 'classification' in OFFLINE[name]['task_type']:
        labels = (labels >= ACTIVE).astype(np.int64)
    smiles = table['smiles'].tolist()
    return write_ogb(
        name, folder, [to_graph(text) for text in smiles], labels,
        scaffold_split(smiles), write_mapping=write_mapping, **OFFLINE[name])


def read_sulfonamides() -> pd.DataFrame:
    r"""Returns columns :obj:`smiles`, :obj:`activity` and :obj:`mol_id`."""
    folder = osp.join(RDConfig.RDContribDir, 'FreeWilson', 'data')
    path = osp.join(folder, 'CHEMBL2321810')
    if not osp.isfile(f'{path}.smi'):
        raise FileNotFoundError(
            f"Expected RDKit to come with '{path}.smi' (got none): the "
            f"wheels of `pip install rdkit` do")
    smiles = pd.read_csv(f'{path}.smi', sep=r'\s+', header=None,
                         names=['smiles', 'mol_id'])
    activity = pd.read_csv(f'{path}_act.csv', header=0,
                           names=['mol_id', 'activity'])
    table = smiles.merge(activity, on='mol_id', validate='one_to_one')
    return table[['smiles', 'activity', 'mol_id']]


def scaffold_split(smiles: list[str]) -> dict[str, np.ndarray]:
    r"""Splits molecules 80 : 10 : 10, so that those with the same Bemis-Murcko
    scaffold stay together, the largest groups in :obj:`"train"`, as OGB and
    MoleculeNet do (Wu et al. 2018, https://arxiv.org/abs/1703.00564).
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(smiles):
        groups[MurckoScaffoldSmiles(text, includeChirality=True)].append(i)
    split: dict[str, list[int]] = {'train': [], 'valid': [], 'test': []}
    # Among groups of a size, those of later molecules come first there.
    for group in sorted(groups.values(), key=lambda g: (-len(g), -g[0])):
        total = len(smiles)
        if len(split['train']) + len(group) <= 0.8 * total:
            split['train'] += group
        elif (len(split['train']) + len(split['valid']) + len(group)
              <= 0.9 * total):
            split['valid'] += group
        else:
            split['test'] += group
    return {key: np.array(index) for key, index in split.items()}
