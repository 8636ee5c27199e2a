"""CPU time that was spent, by a process and its children and by the whole machine, and waiting until none is."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

_IDLE_S, _IDLE_SHARE, _PATIENCE_S = 0.1, 0.25, 5.0  # less of a core than this share for so long is nothing


def cpu_seconds() -> float:
    """CPU seconds so far of all threads of this process and of its children that live, or lived and were waited for."""
    process = psutil.Process()
    own = process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def wait_until_idle() -> bool:
    """Wait until this process and its children have done what they were still at; False if that takes too long.

    A loader that is left has batches in flight, and workers that read ahead; the next turn would be slower by them. On
    a machine that others keep busy such work gets little of a core, so its waiting for one counts as well.
    """
    end = time.perf_counter() + _PATIENCE_S
    while time.perf_counter() < end:
        begin, before, waits = time.perf_counter(), cpu_seconds(), waits_for_cores()
        time.sleep(_IDLE_S)
        waited = sum(wait - waits.get(thread, 0.0) for thread, wait in waits_for_cores().items())
        if cpu_seconds() - before + waited < _IDLE_SHARE * (time.perf_counter() - begin):
            return True
    return False


def waits_for_cores() -> dict[str, float]:
    """Seconds so far that other threads of this process, and those of its children, could run but got no core.

    By thread, as those of one that ends are gone; empty where the kernel does not count them.
    """
    waits: dict[str, float] = {}
    process = psutil.Process()
    for one in [process, *process.children(recursive=True)]:
        for thread in Path(f"/proc/{one.pid}/task").glob("*"):
            with suppress(OSError):  # it has ended
                waits[thread.name] = int((thread / "schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    waits.pop(str(threading.get_native_id()), None)  # this thread only looks, and waits for a core to do so
    return waits


def machine_cpu_seconds() -> float:
    """CPU seconds so far of everything that runs on the machine."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
