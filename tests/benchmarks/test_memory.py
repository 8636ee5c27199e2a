"""Memory: what is counted, when it counts as flat, and a real loader that is watched."""

import numpy as np
import pytest
from softfeed.benchmarks import memory_suite
from softfeed.benchmarks.gpu_time import busy
from softfeed.benchmarks.memory import PeakMemory, gpu_bytes, host_bytes
from softfeed.benchmarks.steps import Played
from softfeed.pipelines import presets


def test_memory_that_is_taken_is_seen_and_so_is_its_peak():
    before = host_bytes()
    with PeakMemory() as peak:
        taken = np.ones(50_000_000, np.uint8)
        assert host_bytes() - before > 45_000_000
        peak._look()
        del taken
    assert peak.host - before > 45_000_000
    assert gpu_bytes() is None or gpu_bytes() > 0


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
