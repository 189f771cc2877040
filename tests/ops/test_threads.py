r"""Threads of the C++ kernels: torch's own, or, after a fork, theirs."""

import subprocess
import sys

import pytest

from torch_geometric_erwin.ops.native import library

pytestmark = [pytest.mark.skipif(library() is None, reason='not built'),
              pytest.mark.skipif(sys.platform != 'linux', reason='no /proc')]

CODE = r'''
import os, torch
from torch_geometric_erwin import BallTree
from torch_geometric_erwin.ops.dense import cpu

torch.manual_seed(0)
torch.set_num_threads(3)
x, pos, weight = (torch.randn(20_000, n) for n in (64, 3, 64))
weight = weight[:64]

def run():
    return [cpu.linear(x, weight),
            BallTree.build(pos, ball_size=64).partition(1).index]

def same(a, b):  # without torch's threads, which a fork leaves behind
    return all((x.numpy() == y.numpy()).all() for x, y in zip(a, b))

x @ x.t()[:, :1000]  # starts torch's threads
first, before = run(), len(os.listdir("/proc/self/task"))
assert same(run(), first)
assert len(os.listdir("/proc/self/task")) == before
child = os.fork()
if child == 0:
    os._exit(0 if same(run(), first) else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
assert same(run(), first)
'''


# The child is the first to call a kernel.
FIRST = r'''
import os, torch, torch_geometric_erwin

torch.set_num_threads(3)
x = torch.randn(2000, 64)
x @ x.t()  # starts torch's threads
child = os.fork()
if child == 0:
    from torch_geometric_erwin.ops.dense import cpu
    cpu.linear(torch.from_numpy(x.numpy().repeat(20, 0)), x[:64])
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
'''


def test_fork():
    r"""Neither waits for threads that are not there, nor computes anything
    else.
    """
    done = subprocess.run([sys.executable, '-c', CODE], timeout=60)
    assert done.returncode == 0


def test_fork_before_the_first_call():
    done = subprocess.run([sys.executable, '-c', FIRST], timeout=60)
    assert done.returncode == 0


def test_fork_before_the_import():
    code = '''
import multiprocessing, numpy, torch

def work():
    from torch_geometric_erwin.ops.dense import cpu
    torch.set_num_threads(3)
    # Not `torch.ones`, which would wait for torch's threads.
    x = torch.from_numpy(numpy.ones((40_000, 64), "f4"))
    cpu.linear(x, x[:64])

torch.set_num_threads(3)
x = torch.randn(2000, 64)
x @ x.t()  # starts torch's threads
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join(50)
assert process.exitcode == 0
'''
    done = subprocess.run([sys.executable, '-c', code], timeout=60)
    assert done.returncode == 0
