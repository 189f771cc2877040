r"""What the package promises about itself."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import torch_geometric_erwin

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'torch_geometric_erwin'
# Each part may import those before it; all others only `tree`, but for one
# that brings layers and transforms to another library.
LAYERS = ['ops', 'tree', 'nn']
BRIDGES = {'graphgym': {'nn', 'transforms', 'datasets'}}
OPTIONAL = ('torch_scatter', 'torch_cluster', 'ogb', 'scipy', 'sklearn',
            'lightning', 'matplotlib', 'plotly', 'triton', 'MDAnalysis',
            'yacs')


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def parts(path: Path) -> set[str]:
    r"""The parts of the package that a module imports."""
    names = [name.split('.') for name in imports(path)]
    return {n[1] for n in names if n[0] == PACKAGE.name and len(n) > 1}


@pytest.mark.parametrize('part', ['ops', 'tree', 'nn', 'transforms',
                                  'datasets', 'visualization', 'graphgym'])
def test_dependencies_point_one_way(part):
    allowed = {part}
    allowed |= set(LAYERS[:LAYERS.index(part)]) if part in LAYERS else {'tree'}
    allowed |= BRIDGES.get(part, set())
    for path in (PACKAGE / part).rglob('*.py'):
        assert parts(path) <= allowed, path


def imported_modules(name: str, modules: dict[str, Path]) -> set[str]:
    r"""The package's modules that a module imports, wherever it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            parts = {f'{node.module}.{alias.name}' for alias in node.names}
            inside = parts & modules.keys()
            found |= inside | ({node.module} if parts - inside else set())
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules.keys()
    return found


def test_imports_have_no_circles():
    modules = {}
    for path in PACKAGE.rglob('*.py'):
        name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        modules[name.removesuffix('.__init__')] = path
    graph = {name: imported_modules(name, modules) for name in modules}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


def test_imports_without_extras():
    code = f'''
import sys
for name in {OPTIONAL!r}:
    sys.modules[name] = None
import torch_geometric_erwin, torch_geometric_erwin.transforms
import torch_geometric_erwin.datasets, torch_geometric_erwin.visualization
'''
    subprocess.run([sys.executable, '-c', code], check=True)


def test_graphgym_tells_what_it_needs():
    code = '''
import sys
sys.modules['yacs'] = None
try:
    import torch_geometric_erwin.graphgym
except ImportError as error:
    assert 'torch_geometric_erwin[graphgym]' in str(error)
else:
    raise AssertionError
'''
    subprocess.run([sys.executable, '-c', code], check=True)


def test_version():
    project = (ROOT / 'pyproject.toml').read_text()
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version and version[1] == torch_geometric_erwin.__version__


def test_sources_are_complete():
    r"""What the C++ files include is in the source distribution."""
    manifest = (ROOT / 'MANIFEST.in').read_text()
    assert 'csrc *.cpp *.h *.md' in manifest
    for path in (PACKAGE / 'csrc').rglob('*.*'):
        assert path.suffix in ('.cpp', '.h', '.md')
