"""CPU time of real processes, and waiting for its end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from softfeed.benchmarks import cpu_time
from softfeed.benchmarks.cpu_time import cpu_seconds, wait_until_idle, waits_for_cores


def test_cpu_seconds_of_children_count():
    before = cpu_seconds()
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "done\n"
    alive = cpu_seconds() - before
    child.communicate("\n")
    assert alive >= 0.45
    assert cpu_seconds() - before >= 0.45  # also when it is gone


def test_waiting_for_a_core_is_seen():
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel does not count what threads wait for cores")
    code = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    core = str(min(os.sched_getaffinity(0)))
    burning = [subprocess.Popen([sys.executable, "-c", code, core]) for _ in range(2)]  # of which one has to wait
    try:
        waited, end = 0.0, time.monotonic() + 30
        while waited < 0.2:
            assert time.monotonic() < end
            time.sleep(0.01)
            waits = waits_for_cores()
            waited = sum(waits[str(process.pid)] for process in burning)
    finally:
        for process in burning:
            process.kill()
            process.wait()
    assert not {str(process.pid) for process in burning} & waits_for_cores().keys()


def test_what_never_rests_is_not_waited_for_any_longer(monkeypatch):
    monkeypatch.setattr(cpu_time, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(cpu_time, "cpu_seconds", time.perf_counter)
    assert wait_until_idle() is False
