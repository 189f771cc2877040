r"""Datasets of OGB (Hu et al. 2020, https://arxiv.org/abs/2005.00687)."""

import os.path as osp
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch_geometric.data import Data

from benchmarks.graphs.data.molecules import OFFLINE, write_ogb_molecules
from benchmarks.graphs.data.ogb_datasets import (
    GraphProperties,
    NodeProperties,
    PCQM4Mv2,
)
from benchmarks.graphs.data.ogb_source import (
    Pos,
    find_folder,
    find_info,
    find_structures,
)
from benchmarks.graphs.data.ogb_tasks import (
    LOSSES,
    MaskedGraph,
    Prepare,
    Score,
    channels,
)
from benchmarks.graphs.data.pcqm4mv2 import PCQM_NAME, choose_splits
from benchmarks.graphs.data.smiles import to_graph
from benchmarks.graphs.data.task import Split, Task
from torch_geometric_erwin.datasets.fingerprint import fingerprint
from torch_geometric_erwin.datasets.ogb_guard import ogb_files, quiet_import

with quiet_import():
    from ogb import graphproppred, nodeproppred
    from ogb.lsc import PCQM4Mv2Evaluator
    from ogb.utils.features import (
        get_atom_feature_dims,
        get_bond_feature_dims,
    )

Transform = Callable[[Data], Data]
Graphs = dict[Split, Sequence[Data]]


def load_ogb(
    name: str,
    root: str,
    pre_transform: Transform | None = None,
    transform: Transform | None = None,
    pos: Pos | None = None,
    num_workers: int = 0,
    meta_dict: dict[str, Any] | None = None,
    download: bool = True,
) -> Task:
    r"""Loads a dataset of OGB, with OGB's splits and OGB's score.

    What :obj:`pre_transform` makes is kept in a folder for each choice of its
    options. :obj:`ogbn-arxiv` is made undirected. The labels of the test
    molecules of :obj:`pcqm4m-v2` are not public: see
    :func:`~benchmarks.graphs.data.pcqm4mv2.choose_splits`. It is in eV.

    Graphs stay in memory: about 0.1 GB for :obj:`ogbn-arxiv`, 3 GB for
    :obj:`ogbn-products`, 4 GB for :obj:`ogbn-proteins` and 7 GB for
    :obj:`pcqm4m-v2`. Once, to convert their files, OGB needs several times
    that: for :obj:`pcqm4m-v2`, some 27 GB.

    Args:
        name (str): :obj:`"pcqm4m-v2"`, a name in OGB that begins with
            :obj:`"ogbg-"` or :obj:`"ogbn-"`, or, for what needs no network,
            one of :obj:`~benchmarks.graphs.data.molecules.OFFLINE`.
        root (str): Where to keep datasets.
        pre_transform (callable, optional): What is done with each graph
            once. (default: :obj:`None`)
        transform (callable, optional): What is done with each graph whenever
            it is asked for. (default: :obj:`None`)
        pos (str, optional): Gives molecules positions :math:`(N, 3)` in
            Ångström: :obj:`"rdkit"` for
            :class:`~benchmarks.graphs.data.conformers.Conformers`, or, of
            :obj:`pcqm4m-v2`, :obj:`"dft"` for
            :class:`~benchmarks.graphs.data.pcqm4mv2.DFTStructures`.
            (default: :obj:`None`)
        num_workers (int, optional): Number of processes that make conformers.
            (default: :obj:`0`)
        meta_dict (dict, optional): What :class:`ogb.io.DatasetSaver` returns
            for a dataset of your own. (default: :obj:`None`)
        download (bool, optional): If set to :obj:`False`, does not fetch what
            is missing. (default: :obj:`True`)

    Raises:
        ValueError: If there is no such dataset, or it has no molecules to
            give positions to, or these are not those of the graphs.
        FileNotFoundError: If a file is missing and cannot be fetched; tells
            where to put it.
        RuntimeError: If a folder or archive is not complete.
    """
    root = osp.abspath(osp.expanduser(root))
    if name in OFFLINE and meta_dict is None:
        meta_dict = write_ogb_molecules(root, name)
    info = find_info(name) if meta_dict is None else meta_dict
    if pos not in (None, 'rdkit', *(['dft'] if name == PCQM_NAME else [])):
        raise ValueError(f"Expected 'pos' to be None, 'rdkit' or, for "
                         f"{PCQM_NAME!r}, 'dft' (got {pos!r} for {name!r})")
    folder = find_folder(name, root, info, meta_dict is None, download)
    prepare = Prepare(LOSSES[info['task type']], name == 'ogbn-arxiv',
                      pre_transform)
    with ogb_files():
        dataset = open_dataset(
            name, root, meta_dict, pre_transform=prepare,
            key=fingerprint(pos, prepare), structures=partial(
                find_structures, pos, folder, root, num_workers, download))
        graphs = split_graphs(name, dataset, transform)
    first = graphs['train'][0]
    metric, stored = info['eval metric'], dataset._data
    atoms, bonds = ((get_atom_feature_dims(), get_bond_feature_dims())
                    if name.startswith('ogbg-mol') or name == PCQM_NAME
                    else (None, None))
    return Task(
        graphs=graphs,
        level='node' if name.startswith('ogbn-') else 'graph',
        loss=prepare.loss,
        in_channels=channels(first.x, stored.x, atoms),
        out_channels=int(info['num classes' if prepare.loss == 'cross_entropy'
                              else 'num tasks']),
        metric=metric,
        maximize=metric not in ('mae', 'rmse'),
        evaluate=Score(make_evaluator(name, info, meta_dict is None), metric),
        edge_channels=None if first.edge_attr is None else channels(
            first.edge_attr, stored.edge_attr, bonds),
    )


def open_dataset(name: str, root: str, meta_dict: dict[str, Any] | None,
                 **kwargs: Any) -> Any:
    if name == PCQM_NAME:
        return PCQM4Mv2(root, smiles2graph=to_graph, **kwargs)
    kind = NodeProperties if name.startswith('ogbn-') else GraphProperties
    return kind(name, root, meta_dict=meta_dict, **kwargs)


def split_graphs(name: str, dataset: Any,
                 transform: Transform | None) -> Graphs:
    split = dataset.get_idx_split()
    if name == PCQM_NAME:
        index = choose_splits(split)
    else:
        # Written by a DatasetSaver, these are arrays.
        index = {'train': torch.as_tensor(split['train']),
                 'val': torch.as_tensor(split['valid']),
                 'test': torch.as_tensor(split['test'])}
    if name.startswith('ogbn-'):
        return {key: MaskedGraph(dataset, value, transform)
                for key, value in index.items()}
    dataset.transform = transform
    return {key: dataset[value] for key, value in index.items()}


def make_evaluator(name: str, info: dict[str, Any], public: bool) -> Any:
    if name == PCQM_NAME:
        return PCQM4Mv2Evaluator()
    node = name.startswith('ogbn-')
    kind = (nodeproppred if node else graphproppred).Evaluator
    if public:
        return kind(name)
    evaluator = kind('ogbn-arxiv' if node else 'ogbg-molhiv')
    evaluator.name = name  # it takes public names only
    evaluator.num_tasks = int(info['num tasks'])
    evaluator.eval_metric = info['eval metric']
    return evaluator
