r"""Writes datasets in OGB's own format."""

import io
import os
import os.path as osp
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import torch

from torch_geometric_erwin.datasets.ogb_guard import quiet_import

with quiet_import():
    from ogb.io import DatasetSaver

META = 'meta_dict.pt'


def write_ogb(
    name: str,
    folder: str,
    graphs: Sequence[Mapping[str, Any]],
    labels: np.ndarray,
    split: Mapping[str, np.ndarray],
    task_type: str,
    metric: str,
    num_classes: int | None = None,
    split_name: str = 'scaffold',
    write_mapping: Callable[[str], None] = lambda folder: None,
) -> dict[str, Any]:
    r"""Writes a dataset by :class:`ogb.io.DatasetSaver`, all or nothing, and
    returns what tells OGB's classes about it. What the folder held before is
    removed.

    Args:
        name (str): A name that begins with :obj:`"ogbg-"` or :obj:`"ogbn-"`.
        folder (str): Where to write it.
        graphs (list[dict]): Graphs as of :meth:`ogb.utils.smiles2graph`.
        labels (numpy.ndarray): Shape
            :math:`(\textrm{graphs or nodes}, \textrm{tasks})`.
        split (dict): Indices of :obj:`"train"`, :obj:`"valid"` and
            :obj:`"test"`.
        task_type (str): As OGB calls it, such as :obj:`"regression"`.
        metric (str): As OGB calls it, such as :obj:`"rmse"`.
        num_classes (int, optional): Needed for classification.
        split_name (str, optional): What the split goes by.
            (default: :obj:`"scaffold"`)
        write_mapping (callable, optional): Writes files about graphs into a
            folder, such as :obj:`mol.csv.gz`. (default: none)
    """
    part = f'{osp.abspath(folder)}.part'
    for leftover in (part, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    mapping = osp.join(part, 'mapping')
    os.makedirs(mapping)
    write_mapping(mapping)
    with open(osp.join(mapping, 'README.md'), 'a'):
        pass  # it insists on one
    # It prints every step, and graphs as a whole.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        # It takes this for the beginning of a folder's name.
        saver = DatasetSaver(name, is_hetero=False, version=1,
                             root=osp.join(part, 'submission'))
        saver.save_graph_list(list(graphs))
        saver.save_target_labels(labels)
        saver.save_split(dict(split), split_name)
        saver.copy_mapping_dir(mapping)
        saver.save_task_info(task_type, metric, num_classes)
        meta = saver.get_meta_dict()
    torch.save(meta, osp.join(saver.dataset_dir, META))
    os.replace(saver.dataset_dir, folder)
    shutil.rmtree(part)
    return {**meta, 'dir_path': folder}


def read_meta(folder: str) -> dict[str, Any] | None:
    r"""Returns the same for a dataset that was finished before, wherever it
    has been moved since, or :obj:`None`.
    """
    path = osp.join(folder, META)
    if not osp.isfile(path):
        return None
    return {**torch.load(path, weights_only=True), 'dir_path': folder}
