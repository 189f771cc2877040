r"""What the sections share: the device, the time left, timing, failures."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType

from benchmarks.speed import timing
from benchmarks.speed.report import Table, milliseconds
from benchmarks.speed.timing import Contender, Rounds, interleave

CACHE = 2**28  # bytes that are written to empty the GPU's cache


@dataclass
class Context:
    r"""The run of one section.

    Args:
        device: Where to run.
        tiny: Whether sizes are to be tiny.
        compiles: Whether to run :func:`torch.compile`.
        official: A clone of the authors' code.
        deadline: When no further case starts.
        failures: What went wrong so far.
    """
    device: torch.device
    tiny: bool
    compiles: bool
    official: str | None
    deadline: float
    failures: list[str] = field(default_factory=list)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == 'cuda'

    def has_time(self, seconds: float = 0.) -> bool:
        return time.monotonic() + seconds < self.deadline

    def fail(self, what: str, why: str) -> None:
        self.failures.append(what)
        print(f'\nFAILED: {what}\n{why}', flush=True)

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        r"""Notes an exception and goes on, unless the GPU is lost."""
        try:
            yield
        except Exception:
            self.fail(what, traceback.format_exc())
        if self.is_cuda:  # raises where the GPU is lost
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def turn(self, fn: Contender) -> float:
        r"""Returns the median seconds of a few calls in a row, each after
        emptying the GPU's cache.
        """
        if not self.is_cuda:
            return timing.turn(fn)
        fn()
        torch.cuda.synchronize()
        first = timing.timed(lambda: (fn(), torch.cuda.synchronize()))
        calls = min(max(int(timing.TURN / first), 2), timing.MOST_CALLS)
        cache = torch.empty(CACHE, dtype=torch.int8, device=self.device)
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)]
                 for _ in range(calls)]
        for start, end in marks:
            cache.zero_()
            start.record()
            fn()
            end.record()
        torch.cuda.synchronize()
        return median(a.elapsed_time(b) for a, b in marks) / 1e3

    def time(self, contenders: Mapping[str, Contender | None],
             ) -> dict[str, float]:
        r"""Returns the contenders' median seconds, taken in turn. One that
        fails is left out.
        """
        ready = {}
        for name, fn in contenders.items():
            if fn is not None:
                with self.guard(name):
                    fn()
                    self.synchronize()
                    ready[name] = fn
        rounds = Rounds(1, 0., 1) if self.tiny else Rounds(5, 1.)
        found = interleave(ready, rounds, self.turn)
        return {name: median(value) for name, value in found.items()}

    def peak(self, fn: Contender) -> float | None:
        r"""Returns by how many bytes a call raises the memory in use."""
        if not self.is_cuda:
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = fn()
        torch.cuda.synchronize()
        del out
        return torch.cuda.max_memory_allocated() - before

    def profile(self, fn: Contender) -> tuple[int, list[Any]]:
        r"""Returns the number of kernels that a call launches, and what
        takes time on the device (without a GPU: on the CPU), longest first.
        """
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.is_cuda:
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        fn()
        self.synchronize()
        with torch.profiler.profile(activities=kinds) as profiler:
            fn()
            self.synchronize()
        events = profiler.key_averages()
        launches = sum(e.count for e in events
                       if e.key.startswith(('cudaLaunch', 'cuLaunch')))
        kind = DeviceType.CUDA if self.is_cuda else DeviceType.CPU
        events = [e for e in events if e.device_type == kind]
        return launches, sorted(events, key=self.spent, reverse=True)

    def spent(self, event: Any) -> float:
        r"""The seconds of an event of :meth:`profile`."""
        own = (event.self_device_time_total if self.is_cuda
               else event.self_cpu_time_total)
        return own / 1e6


def profile_table(context: Context, title: str, fn: Callable[[], Any],
                  most: int) -> tuple[Table, int]:
    r"""What takes time in a call, and the number of kernels it launches."""
    launches, events = context.profile(fn)
    total = sum(map(context.spent, events))
    table = Table(title, ['kernel', 'calls', 'time', 'share'],
                  f'{launches} launches of kernels, {milliseconds(total)} on '
                  'the device.')
    for event in events[:most]:
        name = event.key.replace('|', '/').replace('\n', ' ')
        spent = context.spent(event)
        table.rows.append([
            f'`{name[:70]}`', str(event.count), milliseconds(spent),
            f'{100 * spent / total:.0f}%' if total else ''])
    return table, launches


def show_time(seconds: float | None) -> str:
    return '' if seconds is None else milliseconds(seconds)


def show_bytes(size: float | None) -> str:
    return '' if size is None else f'{size / 1e6:,.1f} MB'
