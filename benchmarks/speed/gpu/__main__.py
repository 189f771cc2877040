r"""Checks what runs on a GPU and times it.

Each section runs in a process of its own, so that one that fails leaves the
others alone.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.speed.gpu import (
    attention,
    check,
    messages,
    model,
    sweep,
    tree,
)
from benchmarks.speed.gpu.context import Context
from benchmarks.speed.report import Table, command, machine, versions, write

MODULE = 'benchmarks.speed.gpu'
PACKAGES = ('torch', 'triton', 'torch-geometric', 'torch-geometric-erwin',
            'numpy', 'einops')
# What a section runs, and its share of the time.
SECTIONS: dict[str, tuple[Callable[[Context], Iterator[Table]], float]] = {
    'check': (check.run, 3.), 'tree': (tree.run, .5),
    'attention': (attention.run, 2.5), 'messages': (messages.run, 1.5),
    'model': (model.run, 3.),
    'sweep': (sweep.run, 3.)}
USUAL = 'check,tree,attention,messages,model'
LEAST = 0.2  # minutes, with less of which no section starts


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f'python -m {MODULE}', description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--sections', default=USUAL,
                        help='what to run, separated by commas, of '
                        + ', '.join(SECTIONS))
    parser.add_argument('--minutes', type=float, default=8.,
                        help='no further case starts after this long')
    parser.add_argument('--official', metavar='PATH', type=Path,
                        help='a clone of https://github.com/maxxxzdn/erwin')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--tiny', action='store_true',
                        help='tiny sizes, also for the CPU')
    parser.add_argument('--compile', action=argparse.BooleanOptionalAction,
                        help='run torch.compile, too: by default on a GPU')
    parser.add_argument('--out', type=Path,
                        help='where to write the tables, as markdown')
    parser.add_argument('--part', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.sections.split(',')) - set(SECTIONS):
        parser.error(f'no such sections: {sorted(unknown)}')
    return args


def driver() -> str:
    query = ['nvidia-smi', '--query-gpu=driver_version',
             '--format=csv,noheader']
    try:
        out = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return out.stdout.splitlines()[0].strip()


def facts(device: torch.device) -> list[str]:
    found = [machine(), versions(PACKAGES)]
    if device.type != 'cuda':
        return [*found, 'device: CPU']
    one = torch.cuda.get_device_properties(device)
    return [f'{one.name}, {one.multi_processor_count} multiprocessors, '
            f'{one.total_memory / 2**30:.0f} GiB, compute capability '
            f'{one.major}.{one.minor}, driver {driver()}, CUDA '
            f'{torch.version.cuda}', *found]


def run_section(args: argparse.Namespace) -> int:
    r"""Runs one section; writes a table to the file as soon as it is
    there, again when it has grown.
    """
    device = torch.device(args.device)
    context = Context(
        device, args.tiny,
        device.type == 'cuda' if args.compile is None else args.compile,
        None if args.official is None else str(args.official),
        time.monotonic() + 60 * args.minutes)
    with args.part.open('a') as file, context.guard(args.sections):
        for table in SECTIONS[args.sections][0](context):
            file.write(json.dumps(asdict(table)) + '\n')
            file.flush()
    return int(bool(context.failures))


def start_section(name: str, args: argparse.Namespace, minutes: float,
                  folder: str) -> tuple[bool, list[Table]]:
    r"""Returns whether a section failed, and its tables."""
    part = Path(folder) / f'{name}.jsonl'
    part.touch()
    line = [sys.executable, '-m', MODULE, '--sections', name, '--minutes',
            str(minutes), '--part', str(part), '--device', args.device]
    line += ['--tiny'] * args.tiny
    if args.official is not None:
        line += ['--official', str(args.official)]
    if args.compile is not None:
        line += ['--compile' if args.compile else '--no-compile']
    try:
        failed = subprocess.run(line, timeout=60 * minutes + 60).returncode
    except subprocess.TimeoutExpired:
        print(f'FAILED: {name} did not end', flush=True)
        failed = 1
    tables: dict[str, Table] = {}
    for row in part.read_text().splitlines():
        table = Table(**json.loads(row))
        tables[table.title] = table
    return bool(failed), list(tables.values())


def main() -> int:
    args = parse()
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        print('There is no CUDA GPU; --device cpu --tiny tries everything '
              'without one.')
        return 2
    if args.part is not None:
        return run_section(args)
    said = facts(torch.device(args.device))
    print('\n'.join(f'- {fact}' for fact in said), flush=True)
    return run_all(args, said)


def run_all(args: argparse.Namespace, said: list[str]) -> int:
    r"""Runs the sections in turn; writes what there is after each."""
    start, chosen = time.monotonic(), args.sections.split(',')
    tables: list[Table] = []
    failed: list[str] = []
    for i, name in enumerate(chosen):
        left = args.minutes - (time.monotonic() - start) / 60
        late = left < LEAST
        if not late:
            weights = [SECTIONS[key][1] for key in chosen[i:]]
            with TemporaryDirectory() as folder:
                bad, found = start_section(name, args, left * weights[0]
                                           / sum(weights), folder)
            failed += [name] * bad
            tables += found
            for table in found:
                print('\n' + table.markdown(), flush=True)
        result = [f'failed: {", ".join(failed) or "nothing"}',
                  *[f'no time for: {", ".join(chosen[i:])}'] * late]
        if args.out is not None:
            write(args.out, 'On a GPU', [*said, *result], tables,
                  command(MODULE))
        if late:
            break
    print('\n' + '; '.join([
        *result, f'{(time.monotonic() - start) / 60:.1f} minutes']))
    return int(bool(failed))


if __name__ == '__main__':
    sys.exit(main())
