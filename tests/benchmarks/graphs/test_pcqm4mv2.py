import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

from benchmarks.graphs.data import pcqm4mv2
from benchmarks.graphs.data.ogb import load_ogb
from benchmarks.graphs.data.pcqm4mv2 import SDF_URL, choose_splits, match
from benchmarks.graphs.data.smiles import parse
from tests.benchmarks.graphs.ogb_layouts import SMILES, write_pcqm4mv2

INVALID = 'C1[SiH2]2[SiH2]1C2'  # to newer versions of RDKit


def scrambled(smiles: str, seed: int) -> tuple[Chem.Mol, np.ndarray]:
    r"""Returns a molecule with hydrogens and atoms in any order, and the
    positions of the heavy ones in the order of SMILES.
    """
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=seed) == 0
    heavy = mol.GetNumHeavyAtoms()
    pos = mol.GetConformer().GetPositions()[:heavy]
    order = np.random.default_rng(seed).permutation(mol.GetNumAtoms())
    return Chem.RenumberAtoms(mol, order.tolist()), pos


def write_sdf(path: Path, smiles: list[str]) -> list[np.ndarray]:
    mols, pos = zip(*(scrambled(text, i) for i, text in enumerate(smiles)),
                    strict=True)
    with Chem.SDWriter(str(path)) as writer:
        writer.SetKekulize(True)
        for mol in mols:
            writer.write(mol)
    return list(pos)


@pytest.fixture
def root(tmp_path):
    write_pcqm4mv2(tmp_path / 'pcqm4m-v2')
    return tmp_path


def test_task(root):
    task = load_ogb('pcqm4m-v2', str(root))
    assert (task.level, task.loss, task.metric, task.maximize) == (
        'graph', 'l1', 'mae', False)
    assert task.out_channels == 1 and len(task.in_channels) == 9
    assert [len(graphs) for graphs in task.graphs.values()] == [5, 1, 3]
    y = torch.cat([data.y for data in task.graphs['test']])
    assert y.shape == (3, 1)
    assert y.flatten().tolist() == [7.5, 8.25, 9.]  # of OGB's valid split
    assert task.evaluate(y + .5, y) == pytest.approx(.5)


def test_molecule_that_rdkit_refuses(tmp_path):
    write_pcqm4mv2(tmp_path / 'pcqm4m-v2', [*SMILES[:8], INVALID,
                                            *SMILES[9:]])
    task = load_ogb('pcqm4m-v2', str(tmp_path))
    assert task.graphs['test'][2].x[:, 0].tolist() == [5, 13, 13, 5]


@pytest.mark.parametrize('packed', [False, True])
def test_dft_structures(root, packed):
    path = root / 'pcqm4m-v2-train.sdf'
    expected = write_sdf(path, SMILES[:6])
    packed_path = root / 'pcqm4m-v2-train.sdf.tar.gz'
    if packed:
        with tarfile.open(packed_path, 'w:gz') as archive:
            archive.add(path, path.name)
        path.unlink()
    task = load_ogb('pcqm4m-v2', str(root), pos='dft')
    found = {data.y.item(): data.pos for data in task.graphs['train']}
    assert len(found) == 5
    for gap, pos in zip(np.linspace(3, 9, 9), expected, strict=False):
        if gap not in found:  # to validate on
            continue
        out, pos = found[gap], torch.from_numpy(pos).float()
        # Atoms that are alike, as of a ring, may change places.
        assert torch.allclose(torch.pdist(out).sort().values,
                              torch.pdist(pos).sort().values, atol=1e-3)
    # As in testing, networks are chosen by what they do with conformers.
    conformers = load_ogb('pcqm4m-v2', str(root), pos='rdkit').graphs
    for split in ('val', 'test'):
        for data, other in zip(task.graphs[split], conformers[split],
                               strict=True):
            assert torch.equal(data.pos, other.pos)
    for file in (path, packed_path):
        file.unlink(missing_ok=True)
    load_ogb('pcqm4m-v2', str(root), pos='dft')  # kept


def test_rdkit_structures(root):
    task = load_ogb('pcqm4m-v2', str(root), pos='rdkit')
    for graphs in task.graphs.values():
        assert all(len(data.pos) == data.num_nodes for data in graphs)


@pytest.mark.parametrize(('smiles', 'message'), [
    ([*SMILES[:5], 'CCC'], 'the atoms of molecule 5'),
    (SMILES[:5], 'the atoms of molecule 5.*none'),
    (SMILES[:7], r'6 molecules \(got more'),
])
def test_other_structures(root, smiles, message):
    write_sdf(root / 'pcqm4m-v2-train.sdf', smiles)
    with pytest.raises(ValueError, match=message):
        load_ogb('pcqm4m-v2', str(root), pos='dft')


def test_no_structures(root):
    with pytest.raises(FileNotFoundError, match=f'Fetch {SDF_URL}'):
        load_ogb('pcqm4m-v2', str(root), pos='dft')
    with tarfile.open(root / 'pcqm4m-v2-train.sdf.tar.gz', 'w:gz') as archive:
        archive.add(root / 'pcqm4m-v2' / 'split_dict.pt', 'split_dict.pt')
    with pytest.raises(ValueError, match='to hold a file'):
        load_ogb('pcqm4m-v2', str(root), pos='dft')


@pytest.mark.parametrize('smiles', [
    'CC(=O)O', 'OC(=O)CC(N)=O', 'CC(=O)Nc1ccc(O)cc1', 'C[C@H](O)C(=O)O',
    'CN1C=NC2=C1C(=O)N(C)C(=O)N2C', 'F/C=C/Cl', 'O=C1C=CC(=O)C=C1',
])
def test_match_is_exact(smiles):
    r"""Atoms that only a double bond or hydrogens tell apart, too."""
    graph = parse(smiles)
    for seed in range(5):
        mol, pos = scrambled(smiles, seed)
        out = match(graph, mol)
        ranks = np.array(Chem.CanonicalRankAtoms(graph, breakTies=False))
        for rank in np.unique(ranks):
            assert np.allclose(np.sort(out[ranks == rank], axis=0),
                               np.sort(pos[ranks == rank], axis=0))


def test_match_of_other_bonds():
    r"""Programs differ in where double bonds and charges are."""
    graph = parse('CN(=O)=O')
    mol, pos = scrambled('C[N+](=O)[O-]', 0)
    out = match(graph, mol)
    assert np.allclose(out[:2], pos[:2])
    assert match(parse('CCCO'), mol) is None
    assert match(parse('CNO'), mol) is None


def test_match_of_what_rdkit_refuses():
    graph = parse('CO[Si]12(C)O[Si]2(O1)(C)OC')
    rdDepictor.Compute2DCoords(graph)
    pos = graph.GetConformer().GetPositions()
    order = np.random.default_rng(0).permutation(len(pos))
    mol = Chem.RenumberAtoms(graph, order.tolist())
    number = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    out = match(graph, mol)
    for i, atom in enumerate(graph.GetAtoms()):
        same = number[(pos[order] == out[i]).all(axis=1)]
        assert same == [atom.GetAtomicNum()]


def test_splits(monkeypatch):
    monkeypatch.setattr(pcqm4mv2, 'NUM_VAL', 30)
    split = {'train': torch.arange(1000), 'valid': torch.arange(1000, 1100)}
    out = choose_splits(split)
    assert [len(index) for index in out.values()] == [970, 30, 100]
    both = torch.cat([out['train'], out['val']])
    assert torch.equal(both.sort().values, split['train'])
    assert torch.equal(out['test'], split['valid'])
    assert torch.equal(choose_splits(split)['val'], out['val'])
