r"""The documentation: its code runs, and Sphinx has no complaints."""

import re
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(path for path in DOCS.rglob('*.rst')
               if '_build' not in path.parts)
BLOCK = re.compile(r'^( *)\.\. code-block:: (\S+)\n'
                   r'((?:\n|\1   .*\n)*)', re.MULTILINE)
PARTS = ['', '.nn', '.tree', '.transforms', '.datasets', '.visualization',
         '.graphgym']


def blocks(path: Path) -> list[str]:
    r"""The code of a page, each block on its lines of the page."""
    text, found = path.read_text(), []
    for block in BLOCK.finditer(text):
        assert block[2] in ('console', 'python'), f'{path}: {block[2]}'
        if block[2] == 'python':
            lines = text.count('\n', 0, block.start(3))
            found.append('\n' * lines + textwrap.dedent(block[3]))
    assert len(found) == text.count('code-block:: python'), path
    return found


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    r"""Examples may write files."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def test_readme_runs():
    text = (ROOT / 'README.md').read_text()
    found = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert found
    for block in found:
        exec(compile(block, 'README.md', 'exec'), {})


@pytest.mark.parametrize('path', [p for p in PAGES if blocks(p)],
                         ids=lambda path: path.stem)
def test_page_runs(path):
    r"""The blocks of a page follow one another."""
    scope = {'__name__': path.stem}
    for block in blocks(path):
        exec(compile(block, str(path), 'exec'), scope)


def test_sphinx(tmp_path):
    r"""No warnings, and a place for every public name."""
    pytest.importorskip('sphinx')
    pytest.importorskip('furo')
    pytest.importorskip('matplotlib')
    subprocess.run([sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-n',
                    '-q', str(DOCS), str(tmp_path / 'html')], check=True)
    pages = [path.read_text() for path in tmp_path.glob('html/api/*.html')]
    described = set(re.findall(r'id="torch_geometric_erwin([\w.]+)"',
                               ''.join(pages)))
    for part in PARTS:
        module = import_module(f'torch_geometric_erwin{part}')
        for name in set(module.__all__) - {'__version__'}:
            places = {f'{where}.{name}' for where in (part, '', '.nn')}
            assert places & described, name
