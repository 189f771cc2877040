import bz2
import os
import sys

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader
from torch_geometric.utils import degree, is_undirected

from torch_geometric_erwin import BallTree
from torch_geometric_erwin.datasets import MDTrajectory
from torch_geometric_erwin.datasets.md_reader import read_box
from torch_geometric_erwin.transforms import AddBallTree

mda = pytest.importorskip('MDAnalysis')
files = pytest.importorskip('MDAnalysisTests.datafiles')

BOLTZMANN = 0.0083144626
WATERS = 4612
EDGES = (5.2763, 5.2808, 5.2840)
WATER = 'resname SOL and not name MW'

GRO = '''two waters
    6
    1SOL     OW    1   0.100   0.100   0.100
    1SOL    HW1    2   0.200   0.100   0.100
    1SOL    HW2    3   0.100   0.200   0.100
    2SOL     OW    4   0.600   0.100   0.100
    2SOL    HW1    5   0.700   0.100   0.100
    2SOL    HW2    6   0.600   0.200   0.100
   {}
'''


pytestmark = pytest.mark.filterwarnings('ignore:Empty box')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp('md'))


@pytest.fixture(scope='module')
def dataset(root):
    return MDTrajectory(root, 'cobrotoxin', require=['box', 'force'])


@pytest.fixture(scope='module')
def water(root):
    return MDTrajectory(root, 'cobrotoxin', select=WATER)


def write_gro(path, box):
    file = path / 'water.gro'
    file.write_text(GRO.format(box))
    return str(file)


def bond_lengths(data):
    i, j = data.edge_index
    offset = data.pos[i] - data.pos[j]
    if 'box' in data:
        offset = offset - data.box * (offset / data.box).round()
    return offset.norm(dim=1)


def test_cobrotoxin(dataset):
    assert str(dataset) == 'MDTrajectory(3)'
    assert [data.time.item() for data in dataset] == [0., 50., 100.]
    for data in dataset:
        assert sorted(data.keys()) == [
            'atom_type', 'box', 'charge', 'edge_index', 'force', 'mass',
            'pos', 'time', 'velocity']
        assert data.num_nodes == 19385 and data.validate()
        assert data.pos.shape == data.force.shape == data.velocity.shape
        for value in (data.pos, data.force, data.velocity, data.mass):
            assert value.dtype == torch.float and value.isfinite().all()
        assert data.atom_type.dtype == torch.long
    # The run keeps the pressure, so the cubic cell breathes.
    for data, edge in zip(dataset, EDGES, strict=True):
        assert torch.allclose(data.box, torch.full((1, 3), edge), atol=1e-4)


def test_units_are_those_of_gromacs(dataset):
    universe = mda.Universe(files.TPR_xvf, files.TRR_xvf, convert_units=False)
    for data, step in zip(dataset, universe.trajectory, strict=True):
        for value, want in ((data.pos, step.positions),
                            (data.box[0], step.dimensions[:3]),
                            (data.velocity, step.velocities),
                            (data.force, step.forces)):
            assert torch.allclose(value, torch.from_numpy(want), rtol=1e-6,
                                  atol=1e-7)


def test_atoms(dataset):
    data = dataset[0]
    assert dataset.atom_types == ['C', 'Cl', 'H', 'N', 'Na', 'O', 'S',
                                  'opls_115']
    assert abs(data.charge.double().sum().item()) < 1e-3
    for name, mass in (('C', 12.011), ('H', 1.008), ('N', 14.0067),
                       ('O', 15.9994), ('S', 32.06), ('opls_115', 0.)):
        of_type = data.atom_type == dataset.atom_types.index(name)
        assert of_type.any()
        assert torch.allclose(data.mass[of_type], torch.tensor(mass),
                              atol=1e-3)
    # Massless sites carry the charge of the oxygens of four-site water.
    site = data.atom_type == dataset.atom_types.index('opls_115')
    assert int(site.sum()) == WATERS
    assert torch.allclose(data.charge[site], torch.tensor(-1.04))


def test_density_is_that_of_water(dataset):
    data = dataset[0]
    density = 1.66054e-3 * data.mass.double().sum() / data.box.prod()
    assert 0.97 < density.item() < 1.05  # kg per liter


def test_forces_agree_with_gromacs(dataset):
    r"""The tool `g_traj` wrote the forces on the protein in kJ/(mol nm)."""
    with bz2.open(files.XVG_BZ2, 'rt') as file:
        rows = np.array([line.split() for line in file
                         if line[0] not in '#@'], dtype=float)
    assert len(rows) == 3
    for data, row in zip(dataset, rows, strict=True):
        assert data.time.item() == row[0]
        want = torch.from_numpy(row[1:]).float().view(-1, 3)
        assert torch.allclose(data.force[:len(want)], want, rtol=1e-5,
                              atol=1e-2)


def test_forces_add_up_to_little(dataset):
    for data in dataset:
        assert 100 < data.force.square().mean().sqrt() < 2000
        total = data.force.double().sum(dim=0).abs().max()
        assert total < 1e-5 * data.force.abs().sum()


def test_water_is_at_300_kelvin(water):
    for data in water:
        energy = (data.mass * data.velocity.square().sum(dim=1)).sum()
        # A rigid molecule moves and turns.
        temperature = energy / (6 * WATERS * BOLTZMANN)
        assert 290 < temperature.item() < 310


def test_water_bonds(dataset, water):
    data = water[0]
    assert data.num_nodes == 3 * WATERS
    assert water.atom_types == ['H', 'O']
    assert is_undirected(data.edge_index)
    bonds = degree(data.edge_index[0], data.num_nodes)
    assert torch.equal(bonds, torch.where(data.atom_type == 1, 2., 1.))
    for data in water:
        assert torch.allclose(bond_lengths(data), torch.tensor(0.09572),
                              atol=1e-4)
    for data in dataset:
        lengths = bond_lengths(data)
        assert data.edge_index.size(1) == 2 * 10153
        assert lengths.min() > 0.09 and lengths.max() < 0.22


def test_files_of_the_user(tmp_path, water):
    dataset = MDTrajectory(str(tmp_path), topology=files.TPR_xvf,
                           trajectory=files.TRR_xvf, select=WATER)
    assert torch.equal(dataset[2].pos, water[2].pos)


def test_select_and_frames(root, dataset):
    chosen = MDTrajectory(root, 'cobrotoxin', frames=[-1, 0],
                          select='protein', periodic=False)
    assert [data.time.item() for data in chosen] == [100., 0.]
    data = chosen[0]
    assert 'box' not in data
    assert data.edge_index.max() < data.num_nodes < 1000
    for key in ('pos', 'velocity', 'force', 'charge', 'mass'):
        assert torch.equal(data[key], dataset[2][key][:data.num_nodes])
    sliced = MDTrajectory(root, 'cobrotoxin', frames=slice(1, None),
                          select='element Na')
    assert [data.time.item() for data in sliced] == [50., 100.]
    assert sliced.atom_types == ['Na']
    assert sliced[0].edge_index.shape == (2, 0)


def test_cache(root, dataset, water):
    path = dataset.processed_paths[1]
    before = os.stat(path).st_mtime_ns
    again = MDTrajectory(root, 'cobrotoxin')
    assert again.processed_paths[1] == path
    assert os.stat(path).st_mtime_ns == before
    assert again.atom_types == dataset.atom_types
    for a, b in zip(again, dataset, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in sorted(b.keys()))
    assert water.processed_dir != dataset.processed_dir


def test_a_changed_file_is_read_again(tmp_path):
    def read(box):
        file = write_gro(tmp_path, box)
        return MDTrajectory(str(tmp_path), topology=file, trajectory=file)

    assert torch.allclose(read('1. 1. 1.')[0].box, torch.ones(1, 3))
    assert torch.allclose(read('1. 2. 1.5')[0].box,
                          torch.tensor([[1., 2., 1.5]]))


def test_pre_transform_and_pre_filter(root):
    def late(data):
        return data.time.item() > 10.

    options = dict(frames=[0, 1], select=WATER, pre_filter=late)
    plain = MDTrajectory(root, 'cobrotoxin', **options,
                         pre_transform=AddBallTree())
    periodic = MDTrajectory(root, 'cobrotoxin', **options,
                            pre_transform=AddBallTree(box='box'))
    assert len(plain) == len(periodic) == 1
    assert BallTree.from_data(plain[0]).box is None
    assert torch.equal(BallTree.from_data(periodic[0]).box, periodic[0].box)


def test_pre_transform_with_a_tensor_finds_its_cache(root):
    def read(box):
        transform = AddBallTree(box=torch.tensor(box))
        return MDTrajectory(root, 'cobrotoxin', frames=[0], select='name CA',
                            pre_transform=transform).processed_dir

    assert read([6., 6., 6.]) == read([6., 6., 6.]) != read([6., 6., 7.])


def test_batch_with_trees(root, water):
    dataset = MDTrajectory(root, 'cobrotoxin', select=WATER,
                           transform=AddBallTree(ball_size=64, box='box'))
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch.box.shape == (2, 3) and batch.time.tolist() == [0., 50.]
    tree = BallTree.from_data(batch)
    assert tree.num_clouds == 2 and torch.equal(tree.box, batch.box)
    assert torch.equal(batch[1].pos, water[1].pos)
    assert torch.allclose(bond_lengths(batch[1]), torch.tensor(0.09572),
                          atol=1e-4)


def test_adk(root):
    dataset = MDTrajectory(root, 'adk', frames=[0, 9],
                           require=['box', 'velocity'])
    data = dataset[1]
    assert len(dataset) == 2 and data.num_nodes == 47681
    assert data.time.item() == pytest.approx(900., abs=1e-3)
    assert 'force' not in data
    assert abs(data.charge.double().sum().item()) < 1e-3
    with pytest.raises(ValueError, match=r"'require'.*\(got no force\)"):
        MDTrajectory(root, 'adk', frames=[0, 9], require=['force'])


def test_rhombic_dodecahedron(root):
    r"""Against the vectors in the file itself, which are in nanometers."""
    dataset = MDTrajectory(root, 'adk', frames=[0, 9], select='name CA')
    universe = mda.Universe(files.TPR, files.TRR)
    atoms = universe.select_atoms('name CA')
    for data, frame in zip(dataset, (0, 9), strict=True):
        step = universe.trajectory[frame]
        assert data.box.shape == (1, 3, 3) and data.box.dtype == torch.float
        want = torch.from_numpy(step.triclinic_dimensions / 10)
        assert torch.allclose(data.box[0], want, rtol=1e-6, atol=1e-6)
        want = torch.from_numpy(atoms.positions / 10)
        assert torch.allclose(data.pos, want, rtol=1e-6, atol=1e-6)
    x, y, z = dataset[0].box[0]
    assert x[1:].tolist() == [0, 0] and y[2] == 0  # rows are vectors
    assert torch.allclose(z @ x, x @ x / 2) and torch.allclose(z @ y, z @ x)
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch.box.shape == (2, 3, 3)
    assert torch.equal(batch[1].box, dataset[1].box)
    plain = MDTrajectory(root, 'adk', frames=[9], select='name CA',
                         periodic=False)[0]
    assert 'box' not in plain and torch.equal(plain.pos, dataset[1].pos)


def write_boxes(path, *boxes):
    r"""Writes a frame for each box, in Angstrom and degrees."""
    file = write_gro(path, '1. 1. 1.')
    universe, out = mda.Universe(file), str(path / 'water.trr')
    with mda.Writer(out, len(universe.atoms)) as writer:
        for box in boxes:
            universe.dimensions = box
            writer.write(universe.atoms)
    return dict(topology=file, trajectory=out)


def test_boxes_of_all_frames_are_alike(tmp_path):
    right, skew = [50, 60, 70, 90, 90, 90], [50, 60, 70, 80, 85, 75]
    made = write_boxes(tmp_path, right, skew, right)
    boxes = [data.box for data in MDTrajectory(str(tmp_path), **made)]
    assert [tuple(box.shape) for box in boxes] == [(1, 3, 3)] * 3
    edges = torch.tensor([5., 6., 7.])
    assert torch.allclose(boxes[0][0], edges.diag())
    assert torch.equal(boxes[0], boxes[2])
    # Lengths and angles are those that were written.
    unit = torch.nn.functional.normalize(boxes[1][0], dim=1)
    angles = torch.rad2deg((unit @ unit.t()).clamp(-1, 1).acos())
    assert torch.allclose(boxes[1][0].norm(dim=1), edges, atol=1e-5)
    assert torch.allclose(angles[[1, 0, 0], [2, 2, 1]],
                          torch.tensor([80., 85., 75.]), atol=1e-3)
    assert boxes[1][0].det() > 0
    alone = MDTrajectory(str(tmp_path), **made, frames=[0, 2])
    assert all(torch.allclose(data.box, edges) and data.box.shape == (1, 3)
               for data in alone)


@pytest.mark.parametrize('angles', [(60, 60, 121), (0, 90, 90),
                                    (90, 180, 90), (90, 90, float('nan'))])
def test_boxes_of_impossible_angles(angles):
    r"""Formats that store vectors have none, but others may."""
    with pytest.raises(ValueError, match=r"'trajectory' to have a volume"):
        read_box(np.array([50, 60, 70, *angles], dtype=np.float32))


def test_files_without_bonds_charges_or_box(tmp_path):
    file = write_gro(tmp_path, '0.0 0.0 0.0')
    dataset = MDTrajectory(str(tmp_path), topology=file, trajectory=file)
    assert sorted(dataset[0].keys()) == ['atom_type', 'mass', 'pos']
    assert dataset.atom_types == ['H', 'O']
    assert torch.allclose(dataset[0].pos[4], torch.tensor([.7, .1, .1]))
    # What is required is checked for processed frames, too.
    for name in ('box', 'charge', 'edge_index', 'velocity'):
        with pytest.raises(ValueError, match=f'got no {name}'):
            MDTrajectory(str(tmp_path), topology=file, trajectory=file,
                         require=[name])


def test_box_without_volume(tmp_path):
    file = write_gro(tmp_path, '5.0 5.0 0.0')
    with pytest.raises(ValueError, match=r'positive.*\[50\.0, 50\.0, 0\.0\]'):
        MDTrajectory(str(tmp_path), topology=file, trajectory=file)
    dataset = MDTrajectory(str(tmp_path), topology=file, trajectory=file,
                           periodic=False)
    assert 'box' not in dataset[0]


@pytest.mark.parametrize('options, match', [
    (dict(name='water'), r"'name' to be one of .*\(got 'water'\)"),
    (dict(name='adk', topology='a.tpr'), "either 'name' or 'topology'"),
    (dict(), "'topology' to be a path"),
    (dict(topology=files.TPR_xvf), "'trajectory' to be a path"),
    (dict(name='cobrotoxin', require='force'), "'require' to be a list"),
    (dict(name='cobrotoxin', require=['spin']), r"'require'.*\['spin'\]"),
    (dict(name='cobrotoxin', frames=1), "'frames' to be a slice or a list"),
    (dict(name='cobrotoxin', frames=[0.5]), r"'frames'.*\[0\.5\]"),
    (dict(name='cobrotoxin', frames=[True]), "'frames'.*True"),
    (dict(name='cobrotoxin', frames=[0, 3]), r"the 3 frames.*\[0, 3\]"),
    (dict(name='cobrotoxin', frames=[-4]), r"the 3 frames.*\[-4\]"),
    (dict(name='cobrotoxin', frames=[]), r"the 3 frames.*\[\]"),
    (dict(name='cobrotoxin', frames=slice(3, 5)), r'the 3 frames.*slice'),
    (dict(name='cobrotoxin', select='name XX'), "19385 atoms.*'name XX'"),
    (dict(name='cobrotoxin', select='nope'), "'select'.*'nope'"),
    (dict(topology=files.TPR_xvf, trajectory=files.XTC),
     r"'topology' and 'trajectory'.*same atoms[\s\S]*19385[\s\S]*47681"),
])
def test_bad_input(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        MDTrajectory(str(tmp_path), **options)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'topology'.*nope\.tpr"):
        MDTrajectory(str(tmp_path), topology='nope.tpr',
                     trajectory=files.TRR_xvf)
    with pytest.raises(FileNotFoundError, match=r"'trajectory'.*nope\.trr"):
        MDTrajectory(str(tmp_path), topology=files.TPR_xvf,
                     trajectory=tmp_path / 'nope.trr')
    junk = tmp_path / 'junk.xyzz'
    junk.write_text('junk')
    with pytest.raises(ValueError, match=r"MDAnalysis can read.*junk\.xyzz"):
        MDTrajectory(str(tmp_path), topology=files.TPR_xvf, trajectory=junk)


def test_pre_filter_that_keeps_nothing(tmp_path):
    with pytest.raises(ValueError, match="'pre_filter'"):
        MDTrajectory(str(tmp_path), 'cobrotoxin', frames=[0],
                     select='protein', pre_filter=lambda data: False)


@pytest.mark.parametrize('name', ['MDAnalysis', 'MDAnalysisTests.datafiles'])
def test_missing_package(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError,
                       match=r"pip install 'torch_geometric_erwin\[bench"):
        MDTrajectory(str(tmp_path), 'cobrotoxin')
