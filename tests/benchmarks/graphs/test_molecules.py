import shutil

import numpy as np
import pytest
import torch
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles
from torch_geometric.loader import DataLoader

from benchmarks.graphs.data import molecules
from benchmarks.graphs.data.molecules import (
    OFFLINE,
    read_sulfonamides,
    scaffold_split,
    write_ogb_molecules,
)
from benchmarks.graphs.data.ogb import load_ogb
from benchmarks.graphs.data.task import SPLITS

NAME = 'ogbg-molsulfonamide'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp('ogb'))


@pytest.mark.parametrize('name', OFFLINE)
def test_from_files_to_score(root, name, capsys):
    r"""OGB's classes read it, OGB's evaluator scores it."""
    task = load_ogb(name, root)
    assert {key: len(task.graphs[key]) for key in SPLITS} == {
        'train': 813, 'val': 102, 'test': 102}
    batch = next(iter(DataLoader(task.graphs['test'], batch_size=102)))
    assert batch.x.size(1) == len(task.in_channels) == 9
    assert batch.edge_attr.size(1) == len(task.edge_channels) == 3
    assert (batch.x.amax(dim=0) < torch.tensor(task.in_channels)).all()
    assert batch.y.shape == (102, task.out_channels)
    assert batch.y.dtype == torch.float
    perfect, other = batch.y.bfloat16(), torch.randn(102, 1)
    if name == NAME:
        assert task.evaluate(perfect, batch.y) == 1.
        assert task.evaluate(-perfect, batch.y) == 0.
        assert set(batch.y.unique().tolist()) == {0., 1.}
    else:
        assert not task.maximize and task.metric == 'rmse'
        expected = (other - batch.y).square().mean().sqrt().item()
        assert task.evaluate(other, batch.y) == pytest.approx(expected)
        assert batch.y.min() > 4 and batch.y.max() < 10


def test_graphs_are_those_of_the_molecules(root):
    task, table = load_ogb(NAME, root), read_sulfonamides()
    split = scaffold_split(table['smiles'].tolist())
    index = split['valid'][5]
    data, graph = task.graphs['val'][5], molecules.to_graph(
        table['smiles'][index])
    assert np.array_equal(data.x, graph['node_feat'])
    assert np.array_equal(data.edge_index, graph['edge_index'])
    assert np.array_equal(data.edge_attr, graph['edge_feat'])
    assert data.y.item() == float(table['activity'][index] >= 7)


def test_scaffolds_stay_together():
    smiles = read_sulfonamides()['smiles'].tolist()
    split = scaffold_split(smiles)
    assert sorted(np.concatenate(list(split.values()))) == list(range(1017))
    scaffolds = [{MurckoScaffoldSmiles(smiles[i], includeChirality=True)
                  for i in index} for index in split.values()]
    assert not scaffolds[0] & scaffolds[1] and not scaffolds[1] & scaffolds[2]
    assert not scaffolds[0] & scaffolds[2]


def test_written_once_and_whole(tmp_path, monkeypatch):
    table = read_sulfonamides()
    calls = []

    def read():
        calls.append(1)
        return table[:40]

    monkeypatch.setattr(molecules, 'read_sulfonamides', read)
    meta = write_ogb_molecules(str(tmp_path))
    assert write_ogb_molecules(str(tmp_path)) == meta
    assert len(calls) == 1
    folder = tmp_path / 'ogbg_molsulfonamide'
    assert meta['dir_path'] == str(folder)
    assert list(tmp_path.iterdir()) == [folder]

    (folder / 'meta_dict.pt').unlink()  # as if it had been interrupted
    (tmp_path / 'ogbg_molsulfonamide.part').mkdir()
    (folder / 'raw' / 'data.npz').write_bytes(b'half')
    assert write_ogb_molecules(str(tmp_path)) == meta
    assert len(calls) == 2 and list(tmp_path.iterdir()) == [folder]

    shutil.move(tmp_path, f'{tmp_path}_moved')
    task = load_ogb(NAME, f'{tmp_path}_moved', pos='rdkit')
    data = task.graphs['train'][0]
    assert data.pos.shape == (data.num_nodes, 3) and len(calls) == 2


def test_no_such_dataset(tmp_path):
    with pytest.raises(ValueError, match="Expected 'name' to be one of"):
        write_ogb_molecules(str(tmp_path), 'ogbg-molhiv')
