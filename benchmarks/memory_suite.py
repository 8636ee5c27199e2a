"""The suite `memory`: whether memory stays flat over hundreds of thousands of images."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from ..pipelines.sources import open_source
from . import page_cache
from .measurement import Here
from .memory import PeakMemory, gpu_bytes, gpu_bytes_before, host_bytes
from .processes import in_fresh_process
from .rates import Rate
from .result import Result
from .session import Session
from .steps import Played, of_loader

_LOOKS = 10  # times that memory is looked at
_SAMPLES = 16  # batches of a look, as each finds other images in flight; their median counts
_BOUND = 0.02  # that it may grow from the first look to the last
_PLAYED = "thousand images played"


def run(session: Session, args: argparse.Namespace) -> Result:
    """Measure the suite."""
    source = open_source(session.played.data)
    session.check_batch(len(source))
    cache = page_cache.warm(source.files)
    session.progress.line(f"playing {args.images:,} images in a process of their own")
    looks = in_fresh_process(play, session.played, args.images)
    rates = [look["images_per_s"] for look in looks]
    cpu = [look["cpu_s_per_image"] for look in looks]
    words = verdict(looks)
    facts = {"looks": looks, "growth": growth(looks), "curves": {_PLAYED: curves(looks)}, "axes": {_PLAYED: "MB"}}
    return session.result("memory", [Rate("loader", tuple(rates), tuple(cpu))], cache=cache, facts=facts, verdict=words)


def play(played: Played, images: int) -> list[dict[str, Any]]:
    """Play some images and look at memory and rate after each tenth of them; of a GPU's, at what the loader took."""
    from .cpu_time import cpu_seconds
    from .measurement import settle

    looks, done = [], 0
    begin, cpu, before = time.perf_counter(), cpu_seconds(), 0
    sampled: list[float] = []
    gpu_before = gpu_bytes_before(played.device)
    loader = played.loader()
    while len(looks) < _LOOKS:
        for count in of_loader(loader)():
            done += count
            wanted = images * (len(looks) + 1) / _LOOKS
            if done >= wanted - _SAMPLES * count:
                sampled.append(host_bytes() / 1e6)
            if done < wanted:
                continue
            settle()
            now, spent = time.perf_counter(), cpu_seconds()
            looks.append(
                {
                    "images": done,
                    "host_mb": statistics.median(sampled),
                    "gpu_mb": None if (used := gpu_bytes()) is None else (used - gpu_before) / 1e6,
                    "images_per_s": (done - before) / (now - begin),
                    "cpu_s_per_image": (spent - cpu) / (done - before),
                }
            )
            begin, cpu, before, sampled = now, spent, done, []
            if len(looks) == _LOOKS:
                break
    return looks


def peak(played: Played, seconds: float) -> dict[str, float | None]:
    """Peak memory of a process that does nothing but play a loader for some seconds; of a GPU's, what that took."""
    before = gpu_bytes_before(played.device)
    loader = played.loader()
    with PeakMemory(before) as memory:
        Here(of_loader(loader)).play(seconds)
    return memory.facts()


def growth(looks: list[dict[str, Any]]) -> dict[str, float]:
    """Last look over first look, for the host and for a GPU that was in use."""
    return {name: looks[-1][name] / looks[0][name] for name in ("host_mb", "gpu_mb") if looks[0][name] is not None}


def curves(looks: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Memory over the images played, for a chart: lines by their name, of the points (x, median, low, high)."""
    return {
        name: [[look["images"] / 1000, *[look[key]] * 3] for look in looks]
        for key, name in (("host_mb", "host"), ("gpu_mb", "GPU"))
        if looks[0][key] is not None
    }


def verdict(looks: list[dict[str, Any]]) -> list[str]:
    """Whether memory is flat, a sentence for each kind."""
    names = {"host_mb": "Host", "gpu_mb": "GPU"}
    first, last = looks[0], looks[-1]
    return [
        f"{names[name]} memory after {last['images']:,} images is {last[name]:,.0f} MB, {ratio - 1:+.1%} against "
        f"{first[name]:,.0f} MB after {first['images']:,}: {'flat' if ratio <= 1 + _BOUND else 'it grows'}."
        for name, ratio in growth(looks).items()
    ]
