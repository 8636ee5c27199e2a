"""Memory: what is counted, when it counts as flat, and a real loader that is watched."""

import json
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from softfeed.benchmarks import memory_suite, outputs
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


class OnGpu:
    """What is played takes 3 MB of a GPU of which others hold 5 GB; it hands over batches of two images."""

    device = "cuda"

    def __init__(self, monkeypatch):
        self.free = 11_000_000_000
        monkeypatch.setattr(torch.cuda, "init", lambda: None)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (self.free, 16_000_000_000))

    def loader(self):
        self.free -= 3_000_000
        return [SimpleNamespace(images=torch.zeros(2, 3, 4, 4))] * 5


def test_what_others_hold_of_a_gpu_is_not_the_loaders(monkeypatch):
    assert memory_suite.peak(OnGpu(monkeypatch), 0.01)["gpu_mb"] == 3.0
    assert {look["gpu_mb"] for look in memory_suite.play(OnGpu(monkeypatch), 20)} == {3.0}


def test_a_loader_alone_in_its_memory_is_counted_with_what_others_left_given_back(monkeypatch):
    """DALI and torch keep what a loader that is closed took, and the next one takes it from there."""
    gpu = OnGpu(monkeypatch)
    gpu.free -= 2_000_000_000
    given = {"dali": 1_500_000_000, "torch": 500_000_000}

    def give(name):
        gpu.free += given.pop(name, 0)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: give("torch"))
    monkeypatch.setattr("nvidia.dali.backend.ReleaseUnusedMemory", lambda: give("dali"))
    assert outputs._gpu_bytes(lambda: nullcontext(gpu.loader()), {}) == 3_000_000
    assert not given


def test_overlapping_kernels_count_once():
    assert busy([]) == 0
    assert busy([(0, 2), (1, 3), (1, 2), (5, 6)]) == 4
    assert busy([(5, 6), (0, 10)]) == 10
