"""How long a training loop takes, and how much of that it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


class LoopClock:
    """Times a loop over batches and its waits for the next batch.

    On a CPU the wait is the time inside `next`. On a GPU the Python loop runs ahead of the kernels, so time inside
    `next` says little; there it is the time between two steps on the compute stream, taken with events. What a loader
    itself does there within `next`, such as mixing, noise, blur and conversion, counts as well, unless something says
    `data_is_there` before it begins.

    Args:
        device: where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._begin = time.perf_counter()
        self._waited_s = 0.0
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._there: torch.cuda.Event | None = None

    def fetch(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, with the wait for each one counted."""
        iterator = iter(batches)
        while True:
            before, self._there = self._mark(), None
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._count(before, self._there or self._mark())
            yield batch

    def data_is_there(self) -> None:
        """End the wait that is under way on a GPU: what is queued from now on is work on the data."""
        if self._gpu is not None:
            self._there = self._event()

    def read(self) -> tuple[float, float]:
        """Seconds since the start, and how many of them were waits. Waits for the GPU, so the steps are in it."""
        if self._gpu is not None:
            torch.cuda.synchronize(self._gpu)
            self._waited_s += sum(before.elapsed_time(after) for before, after in self._gaps) / 1000
            self._gaps.clear()
        return time.perf_counter() - self._begin, self._waited_s

    def _mark(self) -> float | torch.cuda.Event:
        return time.perf_counter() if self._gpu is None else self._event()

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._gpu))
        return event

    def _count(self, before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> None:
        if isinstance(before, float) and isinstance(after, float):
            self._waited_s += after - before
        elif isinstance(before, torch.cuda.Event) and isinstance(after, torch.cuda.Event):
            self._gaps.append((before, after))
