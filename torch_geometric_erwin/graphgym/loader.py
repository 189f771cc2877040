from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.datasets import FakeDataset
from torch_geometric.graphgym.config import cfg
from torch_geometric.graphgym.loader import load_ogb, load_pyg
from torch_geometric.graphgym.register import register_loader
from torch_geometric.transforms import BaseTransform, Compose
from torch_geometric.utils import index_to_mask

from torch_geometric_erwin.datasets.ogb_guard import ogb_files, quiet_import
from torch_geometric_erwin.graphgym.config import tree_options
from torch_geometric_erwin.graphgym.position import position_transform
from torch_geometric_erwin.transforms import AddBallTree

SPLITS = ('train', 'val', 'test')


class BallTreeDataset(InMemoryDataset):
    r"""Graphs with ball trees, in memory.

    Args:
        graphs (list[Data]): The graphs.
    """
    def __init__(self, graphs: Sequence[Data]) -> None:
        super().__init__()
        self.data, self.slices = self.collate(list(graphs))


@register_loader('erwin')
def load_erwin(format: str, name: str,
               dataset_dir: str) -> BallTreeDataset | None:
    r"""Loads a dataset with positions and ball trees (registered as
    :obj:`erwin`), for :obj:`cfg.dataset.format` :obj:`"Erwin"`.

    :obj:`cfg.erwin.pos` says where positions come from. What has no split
    for validation is split at random, by :obj:`cfg.dataset.split` and
    :obj:`cfg.seed`: nodes into masks, or graphs.

    Args:
        format (str): The format.
        name (str): A dataset of GraphGym's formats :obj:`"PyG"` and
            :obj:`"OGB"`, or :obj:`"Fake"` for
            :class:`torch_geometric.datasets.FakeDataset`, graphs of four
            classes that shift the features of their nodes.
        dataset_dir (str): Where downloads go.

    Returns:
        The dataset; :obj:`None` for other formats, which leaves them to
        other loaders.

    Raises:
        ValueError: If there are no positions, or nothing is called
            :obj:`cfg.erwin.pos`.
    """
    if format != 'Erwin':
        return None
    transform = _transform()
    source = _load(name, dataset_dir)
    splits = _take_splits(source)
    dataset = BallTreeDataset([_split_nodes(transform(data))
                               for data in source])
    if cfg.dataset.task == 'graph':
        for key, index in (splits or _split_graphs(len(dataset))).items():
            dataset._data[key] = index  # where GraphGym looks for it
    return dataset


def _transform() -> BaseTransform:
    position = position_transform(cfg.erwin.pos, cfg.erwin.dim)
    return Compose([position, AddBallTree(**tree_options())])


def _load(name: str, dataset_dir: str) -> InMemoryDataset:
    if name == 'Fake':
        return FakeDataset(num_graphs=120, avg_num_nodes=60, avg_degree=4,
                           num_channels=8, edge_dim=0, num_classes=4,
                           task='graph')
    if name.startswith('ogb'):
        with quiet_import(), ogb_files():
            return load_ogb(name.replace('_', '-'), dataset_dir)
    return load_pyg(name, dataset_dir)


def _take_splits(dataset: InMemoryDataset) -> dict[str, Tensor]:
    r"""Takes out what belongs to no graph."""
    names = [f'{split}_graph_index' for split in SPLITS]
    found = {key: dataset._data[key] for key in names if key in dataset._data}
    for key in found:
        del dataset._data[key]
    return found


def _split_graphs(size: int) -> dict[str, Tensor]:
    return {f'{split}_graph_index': index
            for split, index in _random_split(size).items()}


def _split_nodes(data: Data) -> Data:
    if cfg.dataset.task == 'node' and 'val_mask' not in data:
        for split, index in _random_split(data.num_nodes).items():
            data[f'{split}_mask'] = index_to_mask(index, data.num_nodes)
    return data


def _random_split(size: int) -> dict[str, Tensor]:
    share = cfg.dataset.split
    generator = torch.Generator().manual_seed(cfg.seed)
    order = torch.randperm(size, generator=generator)
    ends = torch.tensor(share).cumsum(0).mul(size).round().long().tolist()
    parts = order.tensor_split(ends[:len(share) - 1])
    return dict(zip(SPLITS, parts, strict=False))
