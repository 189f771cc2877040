r"""Forces and stress of what people simulate: energies of a hybrid model in
skewed cells against finite differences in float64.
"""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from torch_geometric_erwin import BallTree, ErwinTransformer
from torch_geometric_erwin.datasets import MDTrajectory
from torch_geometric_erwin.transforms import AddBallGraph, AddBallTree


def make_model(channels: int) -> ErwinTransformer:
    torch.manual_seed(0)
    return ErwinTransformer(channels, 16, 1, depths=2, heads=2, ball_sizes=16,
                            strides=[2], mp_steps=1, periodic=True).double()


def check_derivatives(model: ErwinTransformer, x: Tensor, data: Data,
                      strains: bool = True) -> None:
    r"""A step of an atom, and a strain of the cell, change the energy by what
    forces and virial say; and no force is left on the whole.
    """
    def energy(pos: Tensor, strain: Tensor) -> Tensor:
        deform = torch.eye(3).double() + strain
        tree = model.build_tree(pos @ deform, box=data.box @ deform)
        return model(x, tree, data.edge_index,
                     edge_shift=data.edge_shift).square().sum()

    pos = data.pos.clone().requires_grad_()
    strain = torch.zeros(3, 3).double().requires_grad_()
    gradient, virial = torch.autograd.grad(energy(pos, strain), [pos, strain])
    assert gradient.abs().max() > 1e-6 and virial.abs().max() > 1e-6
    assert gradient.sum(0).abs().max() < 1e-9 * gradient.abs().sum()
    pull = gradient.abs().sum(1).argmax()
    step = 1e-6
    with torch.no_grad():
        for d in range(3):
            move = torch.zeros_like(pos)
            move[pull, d] = step
            slope = (energy(pos + move, strain)
                     - energy(pos - move, strain)) / (2 * step)
            torch.testing.assert_close(slope, gradient[pull, d], rtol=1e-4,
                                       atol=1e-6 * gradient.abs().max())
            if not strains:
                continue
            change = torch.zeros(3, 3).double()
            change[d, (d + 1) % 3] = step
            slope = (energy(pos, change) - energy(pos, -change)) / (2 * step)
            torch.testing.assert_close(slope, virial[d, (d + 1) % 3],
                                       rtol=1e-4,
                                       atol=1e-6 * virial.abs().max())


def test_skewed_crystal():
    r"""A primitive cell of rutile, doubled and sheared; neighbours as ASE's;
    other images of the atoms make no difference.
    """
    build = pytest.importorskip('ase.build')
    from ase.neighborlist import neighbor_list
    from ase.spacegroup import crystal
    atoms = crystal(['Ti', 'O'], [(0, 0, 0), (0.305, 0.305, 0)],
                    spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90])
    atoms = build.make_supercell(atoms, [[2, 0, 0], [1, 2, 0], [0, -1, 2]])
    atoms.rattle(0.05, seed=0)
    pos = torch.from_numpy(atoms.positions)
    data = Data(pos=pos, z=torch.from_numpy(atoms.numbers),
                box=torch.from_numpy(atoms.cell.array)[None],
                pbc=torch.from_numpy(atoms.pbc)[None])
    data = AddBallGraph(r=4., box='box', pbc='pbc', return_shift=True)(data)
    data = AddBallTree(16, [2], box='box', pbc='pbc')(data)
    i, j, shift = neighbor_list('ijS', atoms, 4.)
    expected = torch.from_numpy(np.column_stack([j, i, shift]))
    own = torch.cat([data.edge_index.T, data.edge_shift], dim=1)
    assert sorted(own.tolist()) == sorted(expected.tolist())
    x = torch.nn.functional.one_hot((data.z == 8).long(), 2).double()
    model = make_model(2)
    check_derivatives(model, x, data)
    moved = torch.randint(-2, 3, (len(pos), 3)).double() @ data.box[0]
    other = AddBallTree(16, [2], box='box')(Data(pos=pos + moved,
                                                 box=data.box))
    other = AddBallGraph(r=4., box='box', return_shift=True)(other)
    outs = [model(x, BallTree.from_data(d), d.edge_index,
                  edge_shift=d.edge_shift) for d in (data, other)]
    torch.testing.assert_close(*outs)
    batch = next(iter(DataLoader([data, data], 2)))
    out = model(torch.cat([x, x]), BallTree.from_data(batch),
                batch.edge_index, edge_shift=batch.edge_shift)
    torch.testing.assert_close(out, outs[0].repeat(2, 1))


@pytest.mark.filterwarnings('ignore:Empty box')
def test_adenylate_kinase(tmp_path):
    r"""A rhombic dodecahedron as GROMACS writes it."""
    pytest.importorskip('MDAnalysisTests')
    transform = AddBallGraph(k=8, box='box', return_shift=True)
    data = MDTrajectory(tmp_path, 'adk', frames=[0], select='name CA',
                        transform=transform, require=['box'])[0]
    assert data.box.shape == (1, 3, 3)
    data.pos, data.box = data.pos.double(), data.box.double()
    data.pos += 1e-4 * torch.randn_like(data.pos)  # no two at one height
    data = AddBallTree(16, [2], box='box')(data)
    x = torch.randn(data.num_nodes, 4).double()
    # Several cells are equally short; a strain would choose another.
    check_derivatives(make_model(4), x, data, strains=False)
