import logging
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.loader import DataLoader
from torch_geometric.utils import is_undirected

from benchmarks.graphs.data.ogb import load_ogb
from benchmarks.graphs.data.ogb_writer import write_ogb
from tests.benchmarks.graphs.ogb_layouts import (
    SMILES,
    SPLIT,
    karate,
    write_arxiv,
    write_molecules,
    write_proteins,
    write_raw,
)

INVALID = 'O[Si]123O[Si]3(O1)(O2)O'
LABELS = np.arange(12)[:, None] % 2


class Count:
    r"""Notes each of its calls where no option of it is kept."""
    def __init__(self, option=0):
        self.option = option

    def __call__(self, data):
        logging.getLogger('count').info('called')
        data.option = self.option
        return data

    def __repr__(self):
        return 'Count()'  # as PyG's transforms, does not tell the option


def calls(caplog):
    return sum(record.name == 'count' for record in caplog.records)


def test_molhiv(tmp_path):
    write_molecules(tmp_path / 'ogbg_molhiv', LABELS)
    task = load_ogb('ogbg-molhiv', str(tmp_path))
    assert (task.level, task.loss, task.metric, task.maximize) == (
        'graph', 'binary_cross_entropy', 'rocauc', True)
    assert task.out_channels == 1 and len(task.in_channels) == 9
    assert [len(graphs) for graphs in task.graphs.values()] == [6, 3, 3]
    data = task.graphs['val'][0]  # phenol
    assert data.x[:, 0].tolist() == [5] * 6 + [7]
    assert data.edge_index.size(1) == 14 and is_undirected(data.edge_index)
    assert data.y.tolist() == [[1.]]
    y = torch.cat([data.y for data in task.graphs['train']])
    assert task.evaluate(y - 3, y) == 1.


def test_molpcba(tmp_path):
    r"""Unknown labels are NaN and do not count."""
    labels = np.tile(LABELS.astype(float), 128)
    labels[::3, 1:] = np.nan
    write_molecules(tmp_path / 'ogbg_molpcba', labels)
    task = load_ogb('ogbg-molpcba', str(tmp_path))
    batch = next(iter(DataLoader(task.graphs['train'], batch_size=6)))
    assert (task.metric, task.out_channels) == ('ap', 128)
    assert batch.y.shape == (6, 128) and batch.y.isnan().any()
    assert task.evaluate(batch.y.nan_to_num(9.), batch.y) == 1.


def test_positions_come_before_transforms(tmp_path):
    smiles = [*SMILES[:-1], INVALID]
    write_molecules(tmp_path / 'ogbg_molhiv', LABELS, smiles)
    arguments = ('ogbg-molhiv', str(tmp_path), T.Distance(cat=False))
    with pytest.warns(UserWarning, match='1 of 12 molecules'):
        task = load_ogb(*arguments, pos='rdkit')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        task = load_ogb(*arguments, pos='rdkit')
    data = task.graphs['train'][1]
    row, col = data.edge_index
    length = (data.pos[row] - data.pos[col]).norm(dim=1)
    assert torch.allclose(data.edge_attr[:, 0], length / length.max())
    assert 'pos' not in load_ogb('ogbg-molhiv',
                                 str(tmp_path)).graphs['train'][1]


def test_positions_of_other_molecules(tmp_path):
    write_molecules(tmp_path / 'ogbg_molhiv', LABELS)
    shutil.rmtree(tmp_path / 'ogbg_molhiv' / 'mapping')
    with pytest.raises(ValueError, match='Expected a dataset of molecules'):
        load_ogb('ogbg-molhiv', str(tmp_path), pos='rdkit')
    write_molecules(tmp_path / 'other', LABELS, SMILES[::-1])
    os.rename(tmp_path / 'other' / 'mapping',
              tmp_path / 'ogbg_molhiv' / 'mapping')
    with pytest.raises(ValueError, match='of molecule 0'):
        load_ogb('ogbg-molhiv', str(tmp_path), pos='rdkit')
    load_ogb('ogbg-molhiv', str(tmp_path))


def test_pre_transform_is_kept_by_its_options(tmp_path, caplog):
    write_molecules(tmp_path / 'ogbg_molhiv', LABELS)

    def load(option):
        task = load_ogb('ogbg-molhiv', str(tmp_path), Count(option))
        return task.graphs['test'][0].option

    caplog.set_level('INFO', 'count')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert [load(1), load(2), load(1)] == [1, 2, 1]
    assert calls(caplog) == 24


def test_interrupted_processing_is_done_again(tmp_path, monkeypatch):
    write_molecules(tmp_path / 'ogbg_molhiv', LABELS)
    save = torch.save

    def stop(value, path):
        save(value, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, 'save', stop)
    with pytest.raises(KeyboardInterrupt):
        load_ogb('ogbg-molhiv', str(tmp_path))
    monkeypatch.undo()
    for file in (tmp_path / 'ogbg_molhiv' / 'processed').glob('*/*.pt'):
        file.write_bytes(b'half')
    assert len(load_ogb('ogbg-molhiv', str(tmp_path)).graphs['train']) == 6


def test_transform_at_each_access(tmp_path, caplog):
    caplog.set_level('INFO', 'count')
    write_molecules(tmp_path / 'ogbg_molhiv', LABELS)
    write_arxiv(tmp_path / 'ogbn_arxiv')
    for name in ('ogbg-molhiv', 'ogbn-arxiv'):
        task = load_ogb(name, str(tmp_path), transform=Count(3))
        before = calls(caplog)
        assert [task.graphs['val'][0].option for _ in range(3)] == [3] * 3
        assert calls(caplog) == before + 3


def test_arxiv(tmp_path):
    write_arxiv(tmp_path / 'ogbn_arxiv')
    task = load_ogb('ogbn-arxiv', str(tmp_path))
    assert (task.level, task.loss, task.metric, task.maximize) == (
        'node', 'cross_entropy', 'acc', True)
    assert (task.in_channels, task.out_channels) == (34, 40)
    data = task.graphs['val'][0]
    assert data.mask.nonzero().flatten().tolist() == SPLIT['valid']
    assert data.y.shape == (34, ) and data.y.dtype == torch.long
    assert data.edge_index.size(1) == 156 and is_undirected(data.edge_index)
    out = torch.nn.functional.one_hot(data.y, 40).float()
    assert task.evaluate(out[data.mask], data.y[data.mask]) == 1.
    assert task.evaluate(-out[data.mask], data.y[data.mask]) < 1.
    train = task.graphs['train'][0]
    assert train.mask.sum() == 6 and train.x.data_ptr() == data.x.data_ptr()


def test_products(tmp_path):
    graph = karate()
    write_raw(tmp_path / 'ogbn_products', [graph], 'node-label',
              graph['label'], 'sales_ranking')
    task = load_ogb('ogbn-products', str(tmp_path))
    data = task.graphs['train'][0]
    assert (task.loss, task.out_channels) == ('cross_entropy', 47)
    assert task.edge_channels is None and is_undirected(data.edge_index)


def test_proteins(tmp_path):
    write_proteins(tmp_path / 'ogbn_proteins')
    task = load_ogb('ogbn-proteins', str(tmp_path))
    assert (task.loss, task.metric) == ('binary_cross_entropy', 'rocauc')
    assert (task.in_channels, task.edge_channels) == (8, 8)
    data, = task.graphs['train']
    assert data.y.shape == (34, 112) and data.y.dtype == torch.float
    edges = data.edge_attr[data.edge_index[1] == 5]
    assert torch.allclose(data.x[5], edges.mean(dim=0))
    assert task.evaluate(data.y[data.mask], data.y[data.mask]) == 1.


def test_dataset_of_ones_own(tmp_path):
    graph = karate()
    label = graph.pop('label')
    meta = write_ogb(
        'ogbn-karate', str(tmp_path / 'karate'), [graph], label,
        {key: np.array(index) for key, index in SPLIT.items()},
        'multiclass classification', 'acc', 4, split_name='random')
    task = load_ogb('ogbn-karate', str(tmp_path), meta_dict=meta)
    data = task.graphs['test'][0]
    assert (task.in_channels, task.out_channels) == (34, 4)
    out = torch.nn.functional.one_hot(data.y, 4).float()
    assert task.evaluate(out, data.y) == 1.


def test_archive_in_root_is_used(tmp_path):
    write_arxiv(tmp_path / 'made' / 'arxiv')
    root = tmp_path / 'root'
    root.mkdir()
    shutil.make_archive(str(root / 'arxiv'), 'zip', tmp_path / 'made')
    assert load_ogb('ogbn-arxiv', str(root)).out_channels == 40


@pytest.mark.parametrize(('name', 'url'), [
    ('ogbg-molhiv', 'graphproppred/csv_mol_download/hiv.zip'),
    ('ogbg-molpcba', 'graphproppred/csv_mol_download/pcba.zip'),
    ('ogbn-arxiv', 'nodeproppred/arxiv.zip'),
    ('ogbn-proteins', 'nodeproppred/proteins.zip'),
    ('ogbn-products', 'nodeproppred/products.zip'),
    ('pcqm4m-v2', 'OGB-LSC/pcqm4m-v2.zip'),
])
def test_no_network(tmp_path, name, url):
    for download in (True, False):
        with pytest.raises(FileNotFoundError, match=f'Fetch http.*{url}'):
            load_ogb(name, str(tmp_path), download=download)


def test_wrong_arguments(tmp_path):
    root = str(tmp_path)
    for name in ('ogbn-mag', 'ogbg-code2', 'other'):
        with pytest.raises(ValueError, match="Expected 'name'"):
            load_ogb(name, root)
    with pytest.raises(ValueError, match="Expected 'pos'"):
        load_ogb('ogbg-molhiv', root, pos='dft')
    write_arxiv(tmp_path / 'ogbn_arxiv')
    with pytest.raises(ValueError, match="Expected 'out'"):
        load_ogb('ogbn-arxiv', root).evaluate(torch.zeros(2, 40),
                                              torch.zeros(3).long())
