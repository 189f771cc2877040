r"""Reads what MDAnalysis knows of atoms and frames as tensors, in the units
of GROMACS.
"""

import importlib
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data


def import_optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"'MDTrajectory' requires '{name.split('.')[0]}' (run `pip "
            f"install 'torch_geometric_erwin[benchmarks]'`)") from error


def open_universe(topology: str, trajectory: str) -> Any:
    mda = import_optional('MDAnalysis')
    try:
        return mda.Universe(topology, trajectory)
    except Exception as error:  # readers raise what they stumble upon
        raise ValueError(
            f"Expected 'topology' and 'trajectory' to be files of the same "
            f"atoms that MDAnalysis can read (got {topology!r} and "
            f"{trajectory!r}: {error})") from error


def find_frames(frames: list[int] | slice, num_frames: int) -> list[int]:
    r"""Returns the chosen frames, counted from the first one."""
    every = range(num_frames)
    try:
        chosen = [*every[frames]] if isinstance(frames, slice) else [
            every[frame] for frame in frames]
    except IndexError:
        chosen = []
    if not chosen:
        raise ValueError(f"Expected 'frames' to choose from the "
                         f"{num_frames} frames of 'trajectory' "
                         f"(got {frames!r})")
    return chosen


def select_atoms(universe: Any, select: str) -> Any:
    try:
        atoms = universe.select_atoms(select)
    except Exception as error:  # parsers raise what they stumble upon
        raise ValueError(f"Expected 'select' to be a selection of MDAnalysis "
                         f"(got {select!r}: {error})") from error
    if len(atoms) == 0:
        raise ValueError(f"Expected 'select' to match at least one of the "
                         f"{len(universe.atoms)} atoms (got {select!r})")
    return atoms


def read_atoms(atoms: Any) -> tuple[dict[str, Tensor], list[str]]:
    r"""Returns what all frames share, and the names of the atom types."""
    names = np.asarray(atoms.types, dtype=str)
    if hasattr(atoms, 'elements'):
        elements = np.asarray(atoms.elements, dtype=str)
        names = np.where(elements == '', names, elements)
    atom_types, atom_type = np.unique(names, return_inverse=True)
    out = {'atom_type': torch.from_numpy(atom_type).long()}
    if hasattr(atoms, 'charges'):
        out['charge'] = to_tensor(atoms.charges)
    if hasattr(atoms, 'masses'):
        out['mass'] = to_tensor(atoms.masses)
    if hasattr(atoms, 'bonds'):
        out['edge_index'] = read_bonds(atoms)
    return out, atom_types.tolist()


def read_bonds(atoms: Any) -> Tensor:
    r"""Returns the bonds among the atoms, in both directions."""
    position = np.full(len(atoms.universe.atoms), -1)
    position[atoms.indices] = np.arange(len(atoms))
    bonds = position[np.asarray(atoms.bonds.indices, dtype=int)]
    bonds = bonds.reshape(-1, 2)
    bonds = bonds[(bonds >= 0).all(axis=1)]
    both = np.unique(np.concatenate([bonds, bonds[:, ::-1]]), axis=0)
    return torch.from_numpy(both).t().contiguous()


def read_frame(
    step: Any,
    indices: np.ndarray,
    periodic: bool,
) -> dict[str, Tensor]:
    # MDAnalysis measures in Angstrom, of which a nanometer has ten.
    out = {'pos': to_tensor(step.positions[indices], 0.1)}
    if has_time(step):
        out['time'] = to_tensor([step.time])
    if periodic and step.dimensions is not None:
        out['box'] = read_box(step.dimensions)
    if step.has_velocities:
        out['velocity'] = to_tensor(step.velocities[indices], 0.1)
    if step.has_forces:
        out['force'] = to_tensor(step.forces[indices], 10.)
    return out


def has_time(step: Any) -> bool:
    # MDAnalysis makes up a time, with a warning, where the file has none.
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        try:
            return bool(np.isfinite(step.time))
        except UserWarning:
            return False


def read_box(dimensions: np.ndarray) -> Tensor:
    r"""Returns the lattice of a frame, shape :math:`(1, 3, 3)`: its rows are
    the vectors that span the cell.
    """
    edges, angles = dimensions[:3], dimensions[3:]
    if not (np.isfinite(edges).all() and (edges > 0).all()):
        raise ValueError(f"Expected the box of 'trajectory' to have "
                         f"positive, finite edges (got {edges.tolist()} "
                         f"Angstrom). Use 'periodic=False' to leave it out")
    if is_right(angles):
        return to_tensor(np.diag(edges)[None], 0.1)
    mda = import_optional('MDAnalysis.lib.mdamath')
    vectors = mda.triclinic_vectors(dimensions, dtype=np.float64)
    if not vectors.any():  # what MDAnalysis makes of impossible angles
        raise ValueError(f"Expected the box of 'trajectory' to have a volume "
                         f"(got edges {edges.tolist()} Angstrom and angles "
                         f"{angles.tolist()} degrees). Use 'periodic=False' "
                         f"to leave it out")
    return to_tensor(vectors[None], 0.1)


def is_right(angles: np.ndarray) -> bool:
    return bool(np.allclose(angles, 90., rtol=0., atol=1e-3))


def shorten_boxes(data_list: list[Data]) -> None:
    r"""Replaces lattices by their edges, shape :math:`(1, 3)`, where those of
    all frames have right angles: frames have to be alike to form batches.
    """
    if all('box' in data and data.box[0].count_nonzero() == 3
           for data in data_list):
        for data in data_list:
            data.box = data.box.diagonal(dim1=1, dim2=2).contiguous()


def to_tensor(values: Any, scale: float = 1.) -> Tensor:
    values = np.asarray(values, dtype=np.float64) * scale
    return torch.from_numpy(values).float()


def keep_common_attributes(data_list: list[Data]) -> list[str]:
    r"""Drops what some frames lack and returns the names of the rest."""
    common = set.intersection(*(set(data.keys()) for data in data_list))
    for data in data_list:
        for key in set(data.keys()) - common:
            del data[key]
    return sorted(common)
