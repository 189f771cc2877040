r"""Which edges lead to each target, and what comes from each source."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex

from tests.ops.test_message_passing import KINDS, case
from torch_geometric_erwin.ops import message_passing as package
from torch_geometric_erwin.ops.message_passing import EdgeLists, cpu


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 30),
       st.sampled_from(KINDS[:3]), st.sampled_from(
           ['plain', 'row', 'col', 'unsorted', 'torch']))
def test_lists_edges(sources, targets, edges, kind, how):
    _, edge_index = case(sources, targets, edges, 1, 1, kind)
    plain = edge_index
    if how in ('row', 'col', 'unsorted'):
        plain = EdgeIndex(edge_index, sparse_size=(sources, targets))
        if how != 'unsorted':
            plain, _ = plain.sort_by(how)
            edge_index = plain.as_tensor()
    with pytest.MonkeyPatch.context() as patch:
        if how == 'torch':
            patch.setattr(package.edge_lists, 'library', lambda: None)
        order = torch.randperm(targets)
        lists = EdgeLists.of(plain, sources, targets, order)
    nodes = [(lists.in_ptr, lists.in_edges, edge_index[1], targets)]
    if lists.parts.numel() == 0:
        nodes += [(lists.out_ptr, lists.out, edge_index[0], sources)]
    for ptr, listed, node, count in nodes:
        assert ptr.dtype == listed.dtype == torch.long
        assert len(ptr) == count + 1 and len(listed) == edges
        for i in range(count):
            found = listed[ptr[i]:ptr[i + 1]]
            assert torch.equal(found.sort().values,
                               (node == i).nonzero().flatten())


@pytest.mark.skipif(not cpu.available(), reason='not built')
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 9_000),
       st.sampled_from(KINDS), st.booleans())
def test_rows(sources, targets, edges, kind, has_order):
    r"""Each part has one row for each source of its edges."""
    _, edge_index = case(sources, targets, max(edges, 1), 1, 1, kind)
    order = torch.randperm(targets) if has_order else None
    lists = EdgeLists.of(edge_index, sources, targets, order)
    first, base = lists.parts[:514].view(2, 257)
    count = int(lists.parts[514])
    assert 1 <= count <= 256 and first[0] == 0
    assert (first[count:] == targets).all()
    order = torch.arange(targets) if order is None else order
    total = int(base[count])
    owner = torch.full((total, ), -1)
    for i in range(sources):
        owner[lists.out[lists.out_ptr[i]:lists.out_ptr[i + 1]]] = i
    assert lists.out_ptr[-1] == total and (owner >= 0).all()
    for p in range(count):
        rows = owner[base[p]:base[p + 1]]
        assert len(rows) == len(rows.unique())
        found = [torch.arange(int(lists.in_ptr[i]), int(
            lists.in_ptr[i + 1])) for i in order[first[p]:first[p + 1]]]
        k = torch.cat(found) if found else torch.arange(0)
        source = edge_index[0][lists.in_edges[k]]
        assert torch.equal(rows[lists.in_rows[k]], source)


def test_few_rows_without_nearness():
    edge_index = torch.randint(2_000, (2, 100_000))
    lists = EdgeLists.of(edge_index, 2_000, 2_000)
    assert lists.out_ptr[-1] <= 8 * 2_000


@pytest.mark.parametrize('native', [True, False])
@pytest.mark.parametrize('edge,text', [
    ([[0], [4]], r"targets in 'edge_index' to be in \[0, 4\) \(got 4\)"),
    ([[-1], [0]], r"sources in 'edge_index' to be in \[0, 3\) \(got -1")])
def test_expects_nodes(edge, text, native, monkeypatch):
    if not native:
        monkeypatch.setattr(package.edge_lists, 'library', lambda: None)
    with pytest.raises(ValueError, match=text):
        EdgeLists.of(torch.tensor(edge), 3, 4)


def test_what_edge_indices_remember():
    r"""Is taken on GPUs."""
    edge_index = EdgeIndex(case(5, 5, 20, 1, 1, 'sorted')[1],
                           sparse_size=(5, 5), sort_order='col')
    a, b, c, d, *_ = package.edge_lists._kept(edge_index)
    expected = package.edge_lists._by_sorting(edge_index.as_tensor(), 5, 5)
    assert all(map(torch.equal, (a, b, c), expected))
    assert torch.equal(edge_index[0][d], edge_index[0][expected[3]])
    again = package.edge_lists._kept(edge_index)
    assert d.data_ptr() == again[3].data_ptr()
