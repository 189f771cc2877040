r"""What Sphinx needs to know: ``make docs``."""

import sys
from pathlib import Path
from typing import Any

import torch_geometric_erwin

sys.path.insert(0, str(Path(__file__).parent))
import figures

project = 'torch_geometric_erwin'
author = 'the authors of torch_geometric_erwin'
version = release = torch_geometric_erwin.__version__

extensions = [
    'sphinx.ext.autodoc',
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
exclude_patterns = ['_build']
default_role = 'literal'

html_theme = 'furo'
html_title = f'{project} {version}'
html_show_copyright = False
html_show_sphinx = False

autodoc_inherit_docstrings = False
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_typehints = 'none'  # docstrings tell types
napoleon_custom_sections = [('Shapes', 'notes_style')]
napoleon_preprocess_types = True
napoleon_type_aliases = {
    'BallTree': ':class:`~torch_geometric_erwin.BallTree`'}

# The build needs no network, so it knows the pages of no other project. `obj`
# marks code, as in PyG's documentation, whether or not it has a page.
nitpick_ignore_regex = [
    ('py:obj', '(?s).*'),
    ('py:.*', r'(matplotlib|plotly|torch|torch_geometric)\..*'),
    ('py:class', r'(?!torch_geometric_erwin).*'),  # types of arguments
]


def setup(app: Any) -> None:
    app.connect('builder-inited', lambda app: figures.main())
