import pytest

from torch_geometric_erwin.datasets.ogb_guard import quiet_import


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Neither questions nor requests get an answer."""
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError('there is no network')

    def ask(*args: object) -> None:
        pytest.fail('asks on standard input')

    monkeypatch.setattr('urllib.request.urlopen', refuse)
    monkeypatch.setattr('builtins.input', ask)


def has_ogb() -> bool:
    with quiet_import():
        try:
            import ogb  # noqa: F401
            import rdkit  # noqa: F401
        except ImportError:
            return False
    return True


collect_ignore = [] if has_ogb() else [
    'test_conformers.py', 'test_fetch.py', 'test_ogb.py', 'test_molecules.py',
    'test_pcqm4mv2.py', 'test_cli.py',
]
