"""Memory: what is counted, when it counts as flat, and a real loader that is watched."""

import json
import subprocess
import sys

import pytest
from softfeed.benchmarks import memory_suite
from softfeed.benchmarks.gpu_time import busy
from softfeed.benchmarks.memory import gpu_bytes
from softfeed.benchmarks.steps import Played
from softfeed.pipelines import presets

TAKING = """
import json
import time
import numpy as np
from softfeed.benchmarks.memory import PeakMemory, host_bytes
before = host_bytes()
with PeakMemory() as peak:
    taken = np.ones(300_000_000, np.uint8)
    during = host_bytes()
    time.sleep(2)  # several looks long
    del taken
after = host_bytes()
print(json.dumps([before, during, after, peak.host, PeakMemory().host]))
"""


def test_memory_that_is_taken_is_seen_and_so_is_its_peak():
    # in a process of its own, where nothing else is freed meanwhile
    run = subprocess.run([sys.executable, "-c", TAKING], capture_output=True, text=True, check=True)
    before, during, after, peak, unseen = json.loads(run.stdout)
    assert 270e6 < during - before < 330e6
    assert after - before < 30e6
    assert peak - before > 270e6
    assert unseen == 0
    used = gpu_bytes()
    assert used is None or used > 0


SHARING = """
import json
import mmap
import os
from softfeed.benchmarks.memory import host_bytes
before = host_bytes()
shared = mmap.mmap(-1, 200_000_000)
shared.write(bytes(200_000_000))
alone = host_bytes()
read, write = os.pipe()
go_on = os.pipe()
children = []
for _ in range(3):
    children.append(os.fork())
    if not children[-1]:
        assert sum(shared[::4096]) == 0
        os.write(write, b"1")
        os.read(go_on[0], 1)
        os._exit(0)
for _ in children:
    os.read(read, 1)
with_children = host_bytes()
os.write(go_on[1], b"111")
for child in children:
    os.waitpid(child, 0)
print(json.dumps([before, alone, with_children]))
"""


def test_memory_that_processes_share_counts_once():
    run = subprocess.run([sys.executable, "-c", SHARING], capture_output=True, text=True, check=True)
    before, alone, with_children = json.loads(run.stdout)
    assert 180e6 < alone - before < 220e6
    assert abs(with_children - alone) < 40e6


def test_flat_and_growing():
    looks = [{"images": 20, "host_mb": 100.0, "gpu_mb": 50.0}, {"images": 200, "host_mb": 101.9, "gpu_mb": 51.1}]
    assert memory_suite.growth(looks) == {"host_mb": pytest.approx(1.019), "gpu_mb": pytest.approx(1.022)}
    host, gpu = memory_suite.verdict(looks)
    assert "+1.9%" in host
    assert host.endswith("flat.")
    assert gpu.endswith("it grows.")
    without = [look | {"gpu_mb": None} for look in looks]
    assert list(memory_suite.growth(without)) == ["host_mb"]
    assert memory_suite.curves(looks) == {
        "host": [[0.02, 100.0, 100.0, 100.0], [0.2, 101.9, 101.9, 101.9]],
        "GPU": [[0.02, 50.0, 50.0, 50.0], [0.2, 51.1, 51.1, 51.1]],
    }
    assert list(memory_suite.curves(without)) == ["host"]


def test_a_loader_is_looked_at_ten_times(ramp_folder):
    looks = memory_suite.play(Played(str(ramp_folder), presets.by_name("soft-imagenet"), 4, 16, 1, "cpu"), 100)
    assert [look["images"] for look in looks] == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]
    assert all(look["images_per_s"] > 0 for look in looks)


def test_overlapping_kernels_count_once():
    assert busy([]) == 0
    assert busy([(0, 2), (1, 3), (1, 2), (5, 6)]) == 4
    assert busy([(5, 6), (0, 10)]) == 10
