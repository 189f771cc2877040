import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData

from torch_geometric_erwin import radius_graph
from torch_geometric_erwin.transforms import AddBallGraph


def crystal(n):
    box = torch.eye(3) + torch.rand(3, 3) / 4
    return Data(pos=torch.rand(n, 3) @ box * 2, cell=box[None],
                pbc=torch.tensor([[True, False, True]]))


def test_shifts_and_cells_of_a_batch():
    clouds = [crystal(5), crystal(1), crystal(9)]
    transform = AddBallGraph(r=.8, box='cell', pbc='pbc', return_shift=True)
    batch = transform(Batch.from_data_list(clouds))
    apart = [transform(cloud) for cloud in clouds]
    assert torch.equal(batch.edge_index,
                       Batch.from_data_list(apart).edge_index)
    assert torch.equal(batch.edge_shift,
                       torch.cat([cloud.edge_shift for cloud in apart]))
    assert not batch.edge_shift[:, 1].any() and batch.edge_shift.any()
    row, col = batch.edge_index
    vector = batch.pos[row] - batch.pos[col] + torch.einsum(
        'ed,edf->ef', batch.edge_shift.float(),
        batch.cell[batch.batch[col]])
    assert (vector.norm(dim=1) < .8 + 1e-5).all()


def test_shifts_of_other_edges_go():
    data = AddBallGraph(k=2, box=1., return_shift=True)(crystal(6))
    assert 'edge_shift' in data
    assert 'edge_shift' not in AddBallGraph(k=2, box=1.)(data)


def test_hetero_data():
    data = HeteroData({'atom': {'pos': torch.rand(7, 3)}})
    data = AddBallGraph(r=.9, box=1., return_shift=True)(data)
    edges, shift = radius_graph(data['atom'].pos, .9, box=1.,
                                return_shift=True)
    store = data['atom', 'ball', 'atom']
    assert torch.equal(store.edge_index, edges)
    assert torch.equal(store.edge_shift, shift)


def test_repr():
    assert repr(AddBallGraph(k=3, box='cell', pbc='pbc', return_shift=True)
                ) == ("AddBallGraph(k=3, box='cell', pbc='pbc', "
                      "return_shift=True)")


def test_missing_pbc():
    with pytest.raises(ValueError, match="an attribute 'periodic' that holds"):
        AddBallGraph(k=3, box='cell', pbc='periodic')(crystal(4))
