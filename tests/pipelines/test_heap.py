"""Memory that is free in the middle of a heap goes back to the system."""

import os
from pathlib import Path

import numpy as np
import pytest
from softfeed.pipelines import heap


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(heap._trim() is None, reason="the C library has no malloc_trim")
def test_what_is_free_goes_back_when_it_is_time(monkeypatch):
    monkeypatch.setattr(heap, "_EVERY_S", 1000.0)
    waiting = heap.Heap()
    monkeypatch.setattr(heap, "_EVERY_S", 0.0)
    due = heap.Heap()
    arrays = [np.ones(1 << 16, np.uint8) for _ in range(2000)]  # smaller than what gets pages of its own
    arrays = arrays[::20]  # what stays lies between what is free
    waiting.trim_now_and_then()
    before = resident()
    due.trim_now_and_then()
    assert before - resident() > 0.5 * (1900 << 16)
    assert all(array.all() for array in arrays)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap, "_EVERY_S", 0.0)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    another = heap.Heap()
    another.trim_now_and_then()
    assert another._trim is None
