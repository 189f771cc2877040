import sys
from pathlib import Path

from setuptools import Extension, setup

root = Path(__file__).parent
sources = sorted(
    path.relative_to(root).as_posix()
    for path in (root / 'torch_geometric_erwin' / 'csrc').rglob('*.cpp'))
headers = sorted(
    path.relative_to(root).as_posix()
    for path in (root / 'torch_geometric_erwin' / 'csrc').rglob('*.h'))

if sys.platform == 'win32':
    compile_args, link_args = ['/O2', '/std:c++17', '/EHsc'], []
else:
    # Without `-ffp-contract=off` a compiler may fuse a multiplication and an
    # addition, and the C++ and the torch builder would round differently.
    # Keys are kept in memory that holds points before and after.
    compile_args = [
        '-O3', '-g0', '-std=c++17', '-ffp-contract=off',
        '-fno-strict-aliasing', '-fvisibility=hidden', '-pthread'
    ]
    link_args = ['-pthread']

setup(
    ext_modules=[
        Extension(
            'torch_geometric_erwin._C',
            sources=sources,
            depends=headers,
            include_dirs=['torch_geometric_erwin/csrc'],
            define_macros=[('Py_LIMITED_API', '0x030A0000')],
            py_limited_api=True,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            language='c++',
            optional=True,  # without a compiler, pure torch does the work
        )
    ],
    options={'bdist_wheel': {
        'py_limited_api': 'cp310'
    }},
)
