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


STEPS = r"""
import os, sys, threading, time
import numpy, torch

torch.set_num_threads(3)
NUM = 20_000  # so few that PyTorch needs one thread for what is around

def draw(*shape):  # not by PyTorch, which would wait for threads itself
    rng = numpy.random.default_rng(0)  # has a lock, which a fork may take over
    return torch.from_numpy(rng.random(shape, "f4"))

def call(num):
    from torch_geometric_erwin.ops.ball_attention import cpu as attention
    from torch_geometric_erwin.ops.build_tree import build_tree
    from torch_geometric_erwin.ops.dense import cpu as dense
    from torch_geometric_erwin.tree.neighbors import knn_graph
    pos = draw(num, 3)
    slots, = build_tree(pos, torch.tensor([0, num]), [32], [], [0., 45.])
    knn_graph(pos[:num // 4], 4)
    rows = [draw(num, 4, 16) for _ in range(5)]
    lse = draw(num, 4)
    slope = draw(4)
    index, mask = slots.index[0], slots.mask
    attention.forward(rows[:3], pos, slope, index, mask, None, 32, "distance")
    attention.backward(rows, pos, slope, index, mask, None, lse, 32,
                       "distance", [True] * 5)
    dense.linear(draw(num, 64), draw(64, 64))

def fork(rest):
    child = os.fork()
    if child == 0:
        run(rest)
        os._exit(0)
    end = time.monotonic() + 40
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            os._exit(os.waitstatus_to_exitcode(status))
        time.sleep(0.05)
    os.kill(child, 9)
    print("hangs:", *rest, file=sys.stderr)
    os._exit(1)

def run(steps):
    for i, step in enumerate(steps):
        if step == "import":
            import torch_geometric_erwin
        elif step == "product":  # starts PyTorch's threads
            x = torch.ones(2000, 64)
            x @ x.t()
        elif step == "fork":
            fork(steps[i + 1:])
        elif step == "thread":  # goes on in one, while another is in kernels
            busy = threading.Thread(
                target=lambda: [call(NUM) for _ in range(20)], daemon=True)
            busy.start()
            time.sleep(0.2)
            last = threading.Thread(target=run, args=[steps[i + 1:]])
            last.start()
            last.join()
            return
        else:
            call({"small": 100, "big": NUM}[step])

run(sys.argv[1:])
"""


@pytest.mark.parametrize('steps', [
    'import small product fork big fork big',
    'product fork import small big fork big',
    'import product fork small big',
    'import big product fork fork big',
    'import small product thread fork big',
])
def test_every_order_ends(steps):
    r"""Whatever comes before a fork, nobody waits for threads that only a
    parent has.
    """
    done = subprocess.run([sys.executable, '-c', STEPS, *steps.split()],
                          timeout=90)
    assert done.returncode == 0


def test_fork():
    r"""Neither waits for threads that are not there, nor computes anything
    else.
    """
    done = subprocess.run([sys.executable, '-c', CODE], timeout=60)
    assert done.returncode == 0
