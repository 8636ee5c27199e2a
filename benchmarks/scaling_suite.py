"""The suite `scaling`: images/s over threads, batch sizes, ranks on one machine, and sizes of the data set.

The first three play the data that was given, the last one synthetic shard sets, which it writes; there, what counts is
how the rate and the time to the first batch depend on the number of samples.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..pipelines import cores
from ..pipelines.sources import open_source
from . import synthetic
from .measurement import Contender, Here, Turn
from .processes import OwnProcess
from .rates import Rate
from .result import Result
from .session import Session
from .steps import Played, of_loader
from .verdict import of_epochs

BATCH_SIZES = (8, 16, 32, 64, 128, 256)
SET_SIZES = (1_000, 10_000, 100_000, 1_000_000)
THREADS, BATCH, RANKS, SAMPLES, START = "threads", "batch size", "ranks", "samples in the set", "samples, start-up"


def run(session: Session, args: argparse.Namespace) -> Result:
    """Measure the suite."""
    played = session.played
    source = open_source(played.data)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="softfeed-scaling-")))
        sets = {size: replace(played, data=str(_set_of(size, scratch, session))) for size in SET_SIZES}
        contenders = _contenders(played, len(source), sets, stack)
        rates, cache = session.measure({_name(*key): contender for key, contender in contenders.items()}, source.files)
        session.progress.line("starting loaders of sets of all sizes")
        starts = [{size: start_up(on_set) for size, on_set in sets.items()} for _ in range(session.repeats)]
    by_key = {key: rates[_name(*key)] for key in contenders if _name(*key) in rates}
    panels = curves(by_key) | {START: {"first batch": spread_of(starts)}}
    facts: dict[str, Any] = {"curves": panels, "axes": {START: "seconds"}, "start_up_s": starts}
    words = of_epochs(len(source), played.batch_size) + verdict(by_key, starts)
    return session.result("scaling", list(rates.values()), cache=cache, facts=facts, verdict=words)


def _set_of(size: int, scratch: Path, session: Session) -> Path:
    return synthetic.write_set(scratch / str(size), size, report=session.progress.line)


def _name(axis: str, value: int) -> str:
    return f"{axis}: {value:,}"


def powers(largest: int) -> list[int]:
    """1, 2, 4... up to and with `largest`."""
    return sorted({largest, *(2**power for power in range(largest.bit_length()))})


def _contenders(
    played: Played, samples: int, sets: dict[int, Played], stack: ExitStack
) -> dict[tuple[str, int], Contender]:
    usable = cores.available()
    contenders: dict[tuple[str, int], Contender] = {}
    for threads in powers(usable):
        contenders[THREADS, threads] = _player(replace(played, threads=threads))
    for size in BATCH_SIZES:
        if size <= samples:
            contenders[BATCH, size] = _player(replace(played, batch_size=size))
    for ranks in powers(most_ranks(played.device)):
        if ranks * played.batch_size <= samples:
            contenders[RANKS, ranks] = stack.enter_context(
                Ranks(replace(played, threads=max(1, usable // ranks)), ranks)
            )
    for size, on_set in sets.items():
        contenders[SAMPLES, size] = _player(on_set)
    return contenders


def most_ranks(device: str) -> int:
    """Ranks that a machine is for: one on each of its GPUs, or one on each core."""
    import torch

    return cores.available() if device == "cpu" else torch.cuda.device_count()


def _player(played: Played) -> Here:
    return Here(of_loader(played.loader()))


class Ranks:
    """Several processes that share a data set and the cores, as under torchrun; a contender.

    Args:
        played: What each of them plays, with its own share of the cores as threads.
        count: How many.
    """

    def __init__(self, played: Played, count: int) -> None:
        self._processes = ExitStack()
        self._ranks = [
            self._processes.enter_context(OwnProcess(partial(rank_player, played, rank, count)))
            for rank in range(count)
        ]

    def play(self, seconds: float) -> Turn:
        """Let all play at the same time, and add up."""
        for rank in self._ranks:
            rank.begin(seconds)
        turns = [rank.end() for rank in self._ranks]
        # each counted over a time of its own, so it is the rates that add up
        images, wall = sum(turn.images for turn in turns), sum(turn.images for turn in turns) / sum(map(_rate, turns))
        others = max(statistics.mean(turn.others_s for turn in turns) - sum(turn.cpu_s for turn in turns[1:]), 0.0)
        return Turn(images, wall, sum(turn.cpu_s for turn in turns), others_s=others)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *exception: object) -> None:
        self._processes.close()


def _rate(turn: Turn) -> float:
    return turn.images / turn.wall_s


def rank_player(played: Played, rank: int, count: int) -> Here:
    """The contender in the process of a rank; on GPUs each has its own."""
    device = "cpu" if played.device == "cpu" else f"cuda:{rank}"
    return Here(of_loader(played.loader(rank=rank, world_size=count, device=device)))


def start_up(played: Played) -> float:
    """Seconds from opening a data set to its first batch."""
    begin = time.perf_counter()
    with played.loader() as loader:
        batches = iter(loader)
        next(batches)
        return time.perf_counter() - begin


def curves(rates: dict[tuple[str, int], Rate]) -> dict[str, dict[str, list[list[float]]]]:
    """By axis, the points (value, median, low, high) in images/s."""
    panels: dict[str, dict[str, list[list[float]]]] = {}
    for (axis, value), rate in rates.items():
        panels.setdefault(axis, {"loader": []})["loader"].append([value, rate.median, *rate.spread])
    return panels


def spread_of(starts: list[dict[int, float]]) -> list[list[float]]:
    """Points (samples, median, low, high) in seconds."""
    by_size = {size: [start[size] for start in starts] for size in starts[0]}
    return [[size, statistics.median(values), min(values), max(values)] for size, values in by_size.items()]


def verdict(rates: dict[tuple[str, int], Rate], starts: list[dict[int, float]]) -> list[str]:
    """What each axis does, a sentence each."""
    lines = []
    for axis in dict.fromkeys(axis for axis, _ in rates):
        own = {value: rate.median for (name, value), rate in rates.items() if name == axis}
        best = max(own, key=lambda value: own[value])
        first, last = min(own), max(own)
        lines.append(
            f"{axis}: {own[first]:,.0f} images/s with {first:,}, {own[last] / own[first]:.2f} times that with "
            f"{last:,}; most with {best:,}."
        )
    by_size = spread_of(starts)
    lines.append("First batch after " + ", ".join(f"{s:.2f} s ({size:,.0f} samples)" for size, s, *_ in by_size) + ".")
    return lines
