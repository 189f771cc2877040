r"""Molecules in three dimensions."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import Pool
from typing import Any

import numpy as np
import torch
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor, rdDistGeom
from torch import Tensor

from benchmarks.graphs.data.smiles import parse

GAP = 4.  # between parts that no bond joins, as in salts; Ångström


@dataclass
class Structure:
    r"""Where the atoms of a molecule are.

    Args:
        number (torch.Tensor): Their atomic numbers, shape :math:`(N)`.
        pos (torch.Tensor): Their positions in Ångström, shape
            :math:`(N, 3)`.
    """
    number: Tensor
    pos: Tensor


class Conformers:
    r"""A conformer for each of many molecules, one after the other, by ETKDG
    (Riniker and Landrum 2015, version 3 as in RDKit), without hydrogens that
    the graph of the molecule lacks.

    Where ETKDG finds none, it starts once more from random coordinates, and
    where that fails, too, or RDKit refuses, the molecule is drawn flat, with
    :math:`z = 0`, where atoms of cages may coincide. One warning at the end
    tells how many those were. Parts that no bond joins stand in a row along
    :math:`x`.

    Args:
        smiles (list[str]): The molecules.
        seed (int, optional): Another one makes other conformers.
            (default: :obj:`42`)
        num_workers (int, optional): Number of processes.
            (default: :obj:`0`)
    """
    def __init__(self, smiles: Iterable[str], seed: int = 42,
                 num_workers: int = 0) -> None:
        self.smiles = smiles
        self.seed = seed
        self.num_workers = num_workers

    def __iter__(self) -> Iterator[Structure]:
        count: Counter[str] = Counter()
        for number, pos, method in self._embed():
            count[method] += 1
            yield Structure(torch.from_numpy(number), torch.from_numpy(pos))
        warn(count)

    def _embed(self) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
        jobs = zip(self.smiles, repeat(self.seed))
        if self.num_workers == 0:
            yield from map(embed, jobs)
            return
        with Pool(self.num_workers) as pool:
            yield from pool.imap(embed, jobs, chunksize=64)


def warn(count: Counter[str]) -> None:
    if count['random'] or count['flat']:
        warnings.warn(f"ETKDG failed for {count['random'] + count['flat']} "
                      f"of {count.total()} molecules: {count['random']} were "
                      f"embedded from random coordinates, {count['flat']} "
                      f"are flat, with z = 0", stacklevel=3)


def embed(job: tuple[str, int]) -> tuple[np.ndarray, np.ndarray, str]:
    r"""Returns atomic numbers, positions and how they were found."""
    smiles, seed = job
    mol = parse(smiles)
    number = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()],
                      dtype=np.int64)
    with rdBase.BlockLogs():
        pos, method = positions(mol, seed)
    return number, apart(mol, pos).astype(np.float32), method


def positions(mol: Chem.Mol, seed: int) -> tuple[np.ndarray, str]:
    try:
        full = Chem.AddHs(mol)
        for method in ('ETKDG', 'random'):
            if rdDistGeom.EmbedMolecule(full, options(method, seed)) == 0:
                # Hydrogens come after the atoms that they are added to.
                pos = full.GetConformer().GetPositions()
                return pos[:mol.GetNumAtoms()], method
    except (RuntimeError, ValueError):
        pass  # RDKit refuses to embed what it did not check
    rdDepictor.Compute2DCoords(mol)
    return mol.GetConformer().GetPositions(), 'flat'


def options(method: str, seed: int) -> rdDistGeom.EmbedParameters:
    params: Any = rdDistGeom.ETKDGv3()  # their stubs lack setters
    params.randomSeed = seed
    params.useRandomCoords = method == 'random'
    params.maxIterations = 50  # it would try ten times for each atom
    return params


def apart(mol: Chem.Mol, pos: np.ndarray) -> np.ndarray:
    r"""Puts unconnected parts side by side: ETKDG centres all of them."""
    parts = Chem.GetMolFrags(mol)
    if len(parts) == 1:
        return pos
    pos, edge = pos.copy(), 0.
    for part in map(list, parts):
        pos[part, 0] += edge - pos[part, 0].min()
        edge = pos[part, 0].max() + GAP
    return pos
