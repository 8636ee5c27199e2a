"""Whether the files that are played lie in memory already: the page cache, warmed or emptied on purpose."""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil

_BLOCK = 1 << 20


def warm(files: Iterable[str]) -> str:
    """Read files once, as far as half of the free memory reaches, and say what state that leaves the page cache in."""
    room = psutil.virtual_memory().available // 2
    buffer = bytearray(_BLOCK)
    for file in files:
        with open(file, "rb", buffering=0) as stream:  # noqa: PTH123 - unbuffered, into one buffer
            while count := stream.readinto(buffer):
                room -= count
        if room < 0:
            return "partly warm: the data is larger than half of the free memory"
    return "warm: every file was read before the first turn"


def drop(files: Iterable[str]) -> None:
    """Ask the system to forget the pages of files (`posix_fadvise` with DONTNEED); a hint, but Linux follows it.

    Pages that were not written to disk yet stay, so they are written first.
    """
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


COLD = "cold: pages of the files were dropped before each turn (posix_fadvise DONTNEED; a host's cache may remain)"
