import pytest
import torch

from benchmarks.experiments.data import MDTrajectoryData
from torch_geometric_erwin.datasets import MDTrajectory

files = pytest.importorskip('MDAnalysisTests.datafiles')

GRO = '''one water
    3
    1SOL     OW    1   0.100   0.100   0.100
    1SOL    HW1    2   0.200   0.100   0.100
    1SOL    HW2    3   0.100   0.200   0.100
   1.0 1.0 0.0
'''


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp('md'))


def test_frames(root):
    data = MDTrajectoryData(root, 'cobrotoxin', select='protein')
    data.prepare_data()
    data.setup()
    dataset = MDTrajectory(root, 'cobrotoxin', select='protein')
    for i, split in enumerate(('train', 'val', 'test')):
        got, = data.clouds[split]
        assert sorted(got.keys()) == ['box', 'edge_index', 'pos', 'x', 'y']
        want = dataset[i]
        assert torch.equal(got.pos, want.pos)
        assert torch.equal(got.y, want.force)
        assert torch.equal(got.box, want.box)
        assert torch.equal(got.edge_index, want.edge_index)
        kind, charge = got.x.split([len(dataset.atom_types), 1], dim=1)
        assert torch.equal(kind.argmax(dim=1), want.atom_type)
        assert torch.equal(kind.sum(dim=1), torch.ones(len(kind)))
        assert torch.equal(charge[:, 0], want.charge)
    assert dataset.atom_types == ['C', 'H', 'N', 'O', 'S']
    assert data.num_features == 6 and data.dim == 3
    assert data.scale == pytest.approx(
        dataset[0].force.square().mean().sqrt().item(), rel=1e-5)


def test_files_of_the_user_and_other_frames(root):
    data = MDTrajectoryData(root, topology=files.TPR_xvf,
                            trajectory=files.TRR_xvf, train=[2, 0], val=[1],
                            test=[], select='name CA', periodic=False)
    with pytest.raises(ValueError, match="'frames'"):  # none to test on
        data.setup()
    data = MDTrajectoryData(root, 'cobrotoxin', train=[2], val=[1], test=[0],
                            select='name CA', periodic=False)
    data.setup()
    assert 'box' not in data.clouds['train'][0]


# Chlorine comes here after the first frame.
SELECT = 'name CA or (resname NA CL and prop x < 10)'


def test_unknown_atoms(root):
    data = MDTrajectoryData(root, 'cobrotoxin', select=SELECT)
    with pytest.raises(ValueError, match=(
            r"'val' .* 'train', \['C', 'Na'\] \(got \['Cl'\], too\)")):
        data.prepare_data()


def test_types_go_by_their_names(root):
    data = MDTrajectoryData(root, 'cobrotoxin', select=SELECT, train=[1],
                            val=[0], test=[2])
    data.setup()
    want = MDTrajectory(root, 'cobrotoxin', frames=[0], select=SELECT)
    assert want.atom_types == ['C', 'Na']
    kind = data.clouds['val'][0].x[:, :3].argmax(dim=1)
    assert torch.equal(kind, 2 * want[0].atom_type)  # of C, Cl, Na


def test_missing_files(tmp_path):
    data = MDTrajectoryData(str(tmp_path / 'md'), topology='nope.tpr',
                            trajectory=files.TRR_xvf)
    with pytest.raises(FileNotFoundError, match=r"'topology'.*nope\.tpr"):
        data.prepare_data()
    with pytest.raises(ValueError, match="'topology' to be a path"):
        MDTrajectoryData(str(tmp_path / 'md')).prepare_data()
    assert not (tmp_path / 'md').exists()


def test_no_forces(tmp_path):
    data = MDTrajectoryData(str(tmp_path), 'adk', periodic=False)
    with pytest.raises(ValueError, match=r"'require'.*\(got no force\)"):
        data.prepare_data()


def test_box_without_volume(tmp_path):
    file = tmp_path / 'water.gro'
    file.write_text(GRO)
    data = MDTrajectoryData(str(tmp_path), topology=str(file),
                            trajectory=str(file))
    with pytest.raises(ValueError, match=r'positive.*\[10\.0, 10\.0, 0\.0\]'):
        data.prepare_data()


def test_frames_that_are_shared(tmp_path):
    with pytest.raises(ValueError, match="share no frame"):
        MDTrajectoryData(str(tmp_path), 'cobrotoxin', train=[0, 1])
