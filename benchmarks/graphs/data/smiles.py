r"""Molecules as graphs."""

from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from torch_geometric_erwin.datasets.ogb_guard import quiet_import

with quiet_import():
    from ogb.utils.features import (
        atom_to_feature_vector,
        bond_to_feature_vector,
    )

LAX = Chem.SANITIZE_ALL ^ Chem.SANITIZE_PROPERTIES


def parse(smiles: str) -> Chem.Mol:
    r"""Reads a molecule, if need be without checking its chemistry: newer
    versions of RDKit take offence at valences in some molecules of OGB that
    older ones accepted (https://github.com/snap-stanford/ogb/issues/510).

    Raises:
        ValueError: If it cannot be read at all.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is not None:
            return mol
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
        if mol is None:
            raise ValueError(f"Expected a molecule in SMILES (got "
                             f"{smiles!r})")
        mol.UpdatePropertyCache(strict=False)
        mol = Chem.RemoveHs(mol, sanitize=False)
        Chem.SanitizeMol(mol, LAX, catchErrors=True)
        Chem.FastFindRings(mol)
        return mol


def to_graph(smiles: str) -> dict[str, Any]:
    r"""Returns what :meth:`ogb.utils.smiles2graph` does, also for molecules
    at which that fails because RDKit takes offence.

    Raises:
        ValueError: If the molecule cannot be read at all.
    """
    mol = parse(smiles)
    atoms = [atom_to_feature_vector(atom) for atom in mol.GetAtoms()]
    edges, features = [], []
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        edges += [(i, j), (j, i)]
        features += [bond_to_feature_vector(bond)] * 2
    return {
        'edge_index': np.array(edges, dtype=np.int64).reshape(-1, 2).T,
        'edge_feat': np.array(features, dtype=np.int64).reshape(-1, 3),
        'node_feat': np.array(atoms, dtype=np.int64).reshape(-1, 9),
        'num_nodes': len(atoms),
    }
