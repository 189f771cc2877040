r"""PCQM4Mv2 of OGB-LSC (Hu et al. 2021, https://arxiv.org/abs/2103.09430)."""

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import IO, Any

import numpy as np
import torch
from rdkit import Chem, rdBase
from torch import Tensor

from benchmarks.graphs.data.conformers import Conformers, Structure
from benchmarks.graphs.data.smiles import LAX, parse
from benchmarks.graphs.data.task import Split

PCQM_NAME = 'pcqm4m-v2'
PCQM: dict[str, Any] = {  # as OGB says it of other datasets
    'url': 'https://dgl-data.s3-accelerate.amazonaws.com/dataset/OGB-LSC/'
           'pcqm4m-v2.zip',
    'download_name': PCQM_NAME, 'version': 1, 'binary': 'False',
    'files': ('raw/data.csv.gz', 'split_dict.pt'),
    'task type': 'regression', 'num tasks': 1, 'num classes': -1,
    'eval metric': 'mae',
}
SDF_URL = 'http://ogb-data.stanford.edu/data/lsc/pcqm4m-v2-train.sdf.tar.gz'
NUM_VAL = 150_000


def choose_splits(split: dict[str, Tensor],
                  seed: int = 0) -> dict[Split, Tensor]:
    r"""Returns OGB's :obj:`"valid"` as test split, as its labels are the last
    that are public, and 150,000 molecules of :obj:`"train"`, or a tenth if
    that is less, drawn at random, as validation split. GraphGPS does so, too
    (Rampášek et al. 2022, https://arxiv.org/abs/2205.12454): where results on
    :obj:`"valid"` are reported, they cannot choose the network.
    """
    train = torch.as_tensor(split['train'])
    number = min(NUM_VAL, max(1, len(train) // 10))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    return {'train': train[order[number:].sort().values],
            'val': train[order[:number].sort().values],
            'test': torch.as_tensor(split['valid'])}


class DFTStructures:
    r"""For each molecule to train on, its structure from density functional
    theory, and for each other a conformer of RDKit's: also for those to
    validate on, whose structures are public, so that these choose the network
    by what it can do with conformers. One structure is read at a time.

    Atoms are matched: the file holds them in another order than SMILES,
    and perhaps hydrogens, which the graphs lack.

    Args:
        smiles (list[str]): All molecules of the dataset.
        known (torch.Tensor): Indices of those that the file holds, in
            ascending order.
        train (torch.Tensor): Indices of those to train on.
        path (str): The file, SDF or a tar archive of one.
        num_workers (int, optional): Number of processes that make conformers.
            (default: :obj:`0`)

    Raises:
        ValueError: If the file holds other molecules.
    """
    def __init__(self, smiles: Sequence[str], known: Tensor, train: Tensor,
                 path: str, num_workers: int = 0) -> None:
        self.smiles = smiles
        self.known, self.train = torch.zeros(2, len(smiles),
                                             dtype=torch.bool)
        self.known[torch.as_tensor(known)] = True
        self.train[torch.as_tensor(train)] = True
        self.path = path
        self.num_workers = num_workers

    def __iter__(self) -> Iterator[Structure]:
        others = compress(self.smiles, (~self.train).tolist())
        conformers = iter(Conformers(others, num_workers=self.num_workers))
        with open_sdf(self.path) as file:
            mols = iter(Chem.ForwardSDMolSupplier(file, sanitize=False,
                                                  removeHs=False))
            for i, (known, train) in enumerate(zip(
                    self.known.tolist(), self.train.tolist(), strict=True)):
                found = self._read(i, mols) if known else None
                yield found if train and found else next(conformers)
            if next(mols, None) is not None:
                raise ValueError(f"Expected '{self.path}' to hold "
                                 f"{int(self.known.sum())} molecules (got "
                                 f"more)")
        next(conformers, None)  # warns of failures

    def _read(self, index: int, mols: Iterator[Chem.Mol]) -> Structure:
        mol = next(mols, None)
        graph = parse(self.smiles[index])
        pos = None if mol is None else match(graph, mol)
        if pos is None:
            got = 'none' if mol is None else Chem.MolToSmiles(mol)
            raise ValueError(f"Expected '{self.path}' to hold the atoms of "
                             f"molecule {index}, {self.smiles[index]} (got "
                             f"{got})")
        number = [atom.GetAtomicNum() for atom in graph.GetAtoms()]
        return Structure(torch.tensor(number), torch.from_numpy(pos).float())


@contextmanager
def open_sdf(path: str) -> Iterator[IO[bytes]]:
    r"""Opens an SDF, without unpacking the archive that it may be in."""
    if not tarfile.is_tarfile(path):
        with open(path, 'rb') as file:
            yield file
        return
    with tarfile.open(path, 'r|*') as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None and member.name.endswith('.sdf'):
                yield content
                return
    raise ValueError(f"Expected '{path}' to hold a file '*.sdf' (got none)")


def match(graph: Chem.Mol, mol: Chem.Mol) -> np.ndarray | None:
    r"""Returns the positions in :obj:`mol` of the atoms of :obj:`graph`, in
    their order, shape :math:`(N, 3)`. Best is a match in bonds and chirality,
    which tells atoms apart that are alike otherwise, then in bonds, then in
    what is bonded with what, as programs differ in where they see double
    bonds.
    """
    with rdBase.BlockLogs():
        mol.UpdatePropertyCache(strict=False)
        mol = Chem.RemoveHs(mol, sanitize=False)
        Chem.SanitizeMol(mol, LAX, catchErrors=True)
        Chem.AssignStereochemistryFrom3D(mol)
        if mol.GetNumAtoms() != graph.GetNumAtoms():
            return None
        index = (mol.GetSubstructMatch(graph, useChirality=True)
                 or mol.GetSubstructMatch(graph)
                 or skeleton(mol).GetSubstructMatch(skeleton(graph)))
    pos = mol.GetConformer().GetPositions()
    return pos[list(index)] if index else None


def skeleton(mol: Chem.Mol) -> Chem.Mol:
    plain = Chem.RWMol()
    for atom in mol.GetAtoms():
        plain.AddAtom(Chem.Atom(atom.GetAtomicNum()))
    for bond in mol.GetBonds():
        plain.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(),
                      Chem.BondType.SINGLE)
    return plain.GetMol()
