"""How long a GPU is busy: the union of the intervals in which any kernel or copy runs, whoever started it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .measurement import Batches, Here
from .steps import Played, of_loader


def busy(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals (begin, end)."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def busy_with(played: Played, seconds: float) -> dict[str, float]:
    """GPU time of a loader, see `gpu_busy`; for a process of its own, as the profiler watches all that one does."""
    return gpu_busy(of_loader(played.loader()), seconds)


def gpu_busy(batches: Batches, seconds: float) -> dict[str, float]:
    """GPU time per image and the share of the time that the GPU was busy, seen by torch's profiler.

    The profiler sees the kernels of all libraries in the process, DALI's too. It slows the host down, so rates are not
    taken from this.
    """
    from torch.profiler import ProfilerActivity, profile

    contender = Here(batches)
    contender.play(seconds / 10)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        turn = contender.play(seconds / 3)
    events: Any = profiler.events()
    on_gpu = [event for event in events if event.device_type.name == "CUDA"]
    intervals = [(event.time_range.start, event.time_range.end) for event in on_gpu]
    if not intervals:
        return {}
    span = max(end for _, end in intervals) - min(begin for begin, _ in intervals)
    # the turn's own warm-up was seen, too: take its share out by the rate of the part that was counted
    share = busy(intervals) / span
    return {"busy_share": share, "gpu_us_per_image": 1e6 * share * turn.wall_s / turn.images}
