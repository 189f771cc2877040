r"""What users may say about the compiled kernels."""

import pytest

from torch_geometric_erwin.ops import native


@pytest.mark.parametrize('name,level', [
    (None, 2), ('avx512', 2), ('avx2', 1), ('portable', 0)])
def test_widest_vectors(name, level, monkeypatch):
    monkeypatch.delenv('TORCH_GEOMETRIC_ERWIN_VECTORS', raising=False)
    if name is not None:
        monkeypatch.setenv('TORCH_GEOMETRIC_ERWIN_VECTORS', name)
    assert native.widest() == level
    assert native.isa_level(native.widest()) <= level


def test_unknown_vectors(monkeypatch):
    monkeypatch.setenv('TORCH_GEOMETRIC_ERWIN_VECTORS', 'sse9')
    with pytest.raises(ValueError, match=r"VECTORS' to be one of portable, "
                                         r"avx2, avx512 \(got 'sse9'\)"):
        native.widest()
