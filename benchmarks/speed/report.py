r"""What a benchmark prints: the machine, versions and tables."""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def _first(path: str, key: str) -> str | None:
    r"""The value of the first :obj:`key: value` line of a file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(':', 1)[1].strip() for line in lines
                 if line.startswith(key)), None)


def machine() -> str:
    cpu = _first('/proc/cpuinfo', 'model name') or platform.processor()
    memory = _first('/proc/meminfo', 'MemTotal')
    ram = f'{int(memory.split()[0]) / 2**20:.1f} GiB' if memory else 'unknown'
    return (f'{cpu}, {os.cpu_count()} cores, {ram} memory, '
            f'{platform.system()} {platform.machine()}')


def versions(packages: Sequence[str]) -> str:
    def one(package: str) -> str:
        try:
            return f'{package} {version(package)}'
        except PackageNotFoundError:
            module = sys.modules.get(package.replace('-', '_'))
            found = getattr(module, '__version__', 'not installed')
            return f'{package} {found}'

    found = [one(package) for package in packages]
    return ', '.join([f'Python {platform.python_version()}', *found])


def threading(threads: int) -> str:
    r"""What else decides how fast threads are: OpenMP's waiting and other
    programs.
    """
    policy = os.environ.get('OMP_WAIT_POLICY', 'not set')
    return (f'{threads}, OMP_WAIT_POLICY {policy}, load average before '
            f'{os.getloadavg()[0]:.1f}')


def command(module: str) -> str:
    r"""The exact command line of this run."""
    return ' '.join(['python -m', module, *sys.argv[1:]])


def milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f'{value:,.{2 if value < 10 else 1 if value < 1000 else 0}f} ms'


def times(ratio: float, aim: float | None = None) -> str:
    r"""A ratio, with a mark where it falls short of the aim."""
    short = aim is not None and ratio < aim
    return f'{ratio:.2f}x' + (' (short)' if short else '')


def at_most(value: float, most: float) -> str:
    r"""A number, with a mark where it exceeds the aim."""
    return f'{value:.2f}' + (' (missed)' if value > most else '')


@dataclass
class Table:
    r"""A table for the terminal and for a file.

    Args:
        title: What it shows.
        columns: The heads; the first column is aligned to the left.
        note: What one has to know to read it.
        rows: The cells.
    """
    title: str
    columns: Sequence[str]
    note: str = ''
    rows: list[Sequence[str]] = field(default_factory=list)

    def print(self, console: 'Console') -> None:
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, caption=self.note,
                          title_justify='left', caption_justify='left')
        for i, column in enumerate(self.columns):
            table.add_column(column, justify='right' if i else 'left')
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        rule = ['---', *['---:'] * (len(self.columns) - 1)]
        rows = [self.columns, rule, *self.rows]
        body = '\n'.join(f'| {" | ".join(row)} |' for row in rows)
        return '\n\n'.join(filter(None, [f'## {self.title}', body, self.note]))


def write(path: Path, title: str, facts: Sequence[str],
          tables: Sequence[Table], line: str) -> None:
    r"""Writes the tables as markdown, ending with the command line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f'# {title}', '\n'.join(f'- {fact}' for fact in facts),
             *[table.markdown() for table in tables],
             f'```\n{line}\n```']
    path.write_text('\n\n'.join(parts) + '\n')
