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
    # in a process of its own, where nothing else is freed meanwhile, and with much more than it shares with others:
    # its share of a library shrinks while another program loads that, too
    run = subprocess.run([sys.executable, "-c", TAKING], capture_output=True, text=True, check=True)
    before, during, after, peak, unseen = json.loads(run.stdout)
    assert 270e6 < during - before < 330e6
    assert after - before < 30e6
    assert peak - before > 270e6
    assert unseen == 0
    used = gpu_bytes()
    assert used is None or used > 0


def test_flat_and_growing():
    looks = [{"images": 20, "host_mb": 100.0, "gpu_mb": 50.0}, {"images": 200, "host_mb": 101.9, "gpu_mb": 51.1}]
    assert memory_suite.growth(looks) == {"host_mb": pytest.approx(1.019), "gpu_mb": pytest.approx(1.022)}
    host, gpu = memory_suite.verdict(looks)
    assert "+1.9%" in host
    assert host.endswith("flat.")
    assert gpu.endswith("it grows.")
    without = [look | {"gpu_mb": None} for look in looks]
    assert list(memory_suite.growth(without)) == ["host_mb"]


def test_a_loader_is_looked_at_ten_times(ramp_folder):
    looks = memory_suite.play(Played(str(ramp_folder), presets.by_name("soft-imagenet"), 4, 16, 1, "cpu"), 100)
    assert [look["images"] for look in looks] == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]
    assert all(look["images_per_s"] > 0 for look in looks)


def test_overlapping_kernels_count_once():
    assert busy([]) == 0
    assert busy([(0, 2), (1, 3), (1, 2), (5, 6)]) == 4
    assert busy([(5, 6), (0, 10)]) == 10
