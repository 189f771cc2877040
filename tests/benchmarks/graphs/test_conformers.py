import warnings

import numpy as np
import pytest
import torch
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom

from benchmarks.graphs.data.conformers import Conformers
from benchmarks.graphs.data.smiles import parse, to_graph
from tests.benchmarks.graphs.ogb_layouts import SMILES
from torch_geometric_erwin.datasets.ogb_guard import quiet_import

with quiet_import():
    from ogb.utils import smiles2graph

INVALID = 'O[Si]123O[Si]3(O1)(O2)O'  # to newer versions of RDKit


@pytest.mark.parametrize('smiles', [*SMILES, '[H][H]', '*CC', '[Na+].[Cl-]'])
def test_graphs_are_those_of_ogb(smiles):
    expected, out = smiles2graph(smiles), to_graph(smiles)
    assert expected.keys() == out.keys()
    for key in expected:
        first, second = np.asarray(expected[key]), np.asarray(out[key])
        assert np.array_equal(first, second)
        assert first.dtype == second.dtype


def test_molecules_that_rdkit_refuses():
    before = rdBase.LogStatus()
    graph = to_graph(INVALID)
    assert graph['num_nodes'] == 7
    assert graph['edge_index'].shape == (2, 18)
    assert rdBase.LogStatus() == before
    with pytest.raises(ValueError, match="Expected a molecule in SMILES"):
        parse('(C')


def test_conformers():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        out = list(Conformers(SMILES))
    assert len(out) == len(SMILES)
    for smiles, structure in zip(SMILES, out, strict=True):
        mol = Chem.MolFromSmiles(smiles)
        assert structure.number.tolist() == [
            atom.GetAtomicNum() for atom in mol.GetAtoms()]
        assert structure.pos.dtype == torch.float
        bonds = torch.tensor([[b.GetBeginAtomIdx(), b.GetEndAtomIdx()]
                              for b in mol.GetBonds()])
        length = structure.pos[bonds].diff(dim=1).norm(dim=2)
        assert length.min() > 1. and length.max() < 1.7


def test_conformers_are_the_same_each_time():
    first = list(Conformers(SMILES))
    second = list(Conformers(SMILES, num_workers=2))
    other = list(Conformers(SMILES, seed=1))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.pos, b.pos) and torch.equal(a.number, b.number)
    assert not torch.equal(first[3].pos, other[3].pos)


def test_parts_are_apart():
    structure, = Conformers(['c1ccccc1.[Na+].CCO'])
    parts = structure.pos.split([6, 1, 3])
    assert torch.cdist(parts[0], parts[1]).min() > 3.9
    assert torch.cdist(parts[1], parts[2]).min() > 3.9


def test_one_warning_for_all_failures(monkeypatch):
    embed = rdDistGeom.EmbedMolecule
    monkeypatch.setattr(
        rdDistGeom, 'EmbedMolecule', lambda mol, params:
        embed(mol, params) if params.useRandomCoords else -1)
    with pytest.warns(UserWarning, match='failed') as record:
        flat, *others = Conformers([INVALID, 'CCO', 'CC'])
    message, = [str(entry.message) for entry in record]
    assert '3 of 3' in message and '2 were embedded from random' in message
    assert '1 are flat' in message
    assert flat.pos.shape == (7, 3) and (flat.pos[:, 2] == 0).all()
    assert [len(other.pos) for other in others] == [3, 2]
