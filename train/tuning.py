"""Finding a loader's fastest settings by playing batches: one setting after the other, its values in turn.

A machine's speed drifts, so values are only compared within a round, in which each is played once; a value replaces the
default if it was faster in nearly all rounds, and by more than `GAIN` in the middle one. Otherwise the difference is
noise, and the default stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from ..pipelines import Loader

GAIN = 1.03  # faster than this in the middle round to be worth another setting
_LOST_ROUNDS = 0.1  # quantile of the rounds that must have been won
_LEAST_S = 0.05  # shortest time that a value is played in a round, after its first batches
MIN_ROUNDS = 5  # of fewer, noise wins all too often


@dataclass(frozen=True)
class Trial:
    """What was measured of one setting.

    Attributes:
        name: The setting.
        values: What was played, the value in use first.
        images_per_s: Per value, one number per round.
        chosen: The value to use.
    """

    name: str
    values: tuple[Any, ...]
    images_per_s: tuple[tuple[float, ...], ...]
    chosen: Any

    @property
    def medians(self) -> tuple[float, ...]:
        """Images per second of each value, in the middle of its rounds."""
        return tuple(float(np.median(rates)) for rates in self.images_per_s)

    @property
    def gain(self) -> float:
        """How much faster than the value in use the chosen one is, in the middle round: 1 if it is the same."""
        rates = np.array(self.images_per_s[self.values.index(self.chosen)])
        return float(np.median(rates / np.array(self.images_per_s[0])))

    @property
    def fastest(self) -> Any:
        """The value that a tuner would take: the one in use, unless another is clearly faster."""
        return self.values[faster([list(rates) for rates in self.images_per_s])]


def faster(rates: list[list[float]]) -> int:
    """Which of some values to use, by their rates in the same rounds, the first being in use: 0 if it stays."""
    ratios = np.array(rates) / np.array(rates[0])
    middle = np.median(ratios, axis=1)
    sure = np.quantile(ratios, _LOST_ROUNDS, axis=1, method="lower") > 1
    middle[~sure | (middle < GAIN)] = 1
    return int(np.argmax(middle))


def check_budget(seconds: float, rounds: int) -> None:
    """Raise ValueError for a time that is not positive or too few rounds."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"seconds must be positive, got {seconds}")
    if rounds < MIN_ROUNDS:
        raise ValueError(f"rounds must be at least {MIN_ROUNDS}, got {rounds}")


def tune(
    make: Callable[..., Loader],
    start: dict[str, Any],
    choices: dict[str, tuple[Any, ...]],
    *,
    seconds: float,
    rounds: int,
    report: Callable[[str], None],
) -> Iterator[Trial]:
    """Try the values of each setting, with the best of the settings before it.

    Args:
        make: Makes a loader of some settings, as keyword arguments.
        start: Settings in use.
        choices: What to try, by the name of the setting.
        seconds: Time to spend altogether, > 0; making loaders comes on top.
        rounds: How often each value is played, >= `MIN_ROUNDS`.
        report: Told what is going on, after each round.
    """
    check_budget(seconds, rounds)
    settings = dict(start)
    plays = sum(len({settings[name], *values}) for name, values in choices.items())
    for name, others in choices.items():
        values = (settings[name], *(value for value in others if value != settings[name]))
        rates = played_in_turn(
            [partial(make, **settings | {name: value}) for value in values],
            seconds=seconds * len(values) / plays,
            rounds=rounds,
            report=lambda done, name=name: report(f"{name}: round {done} of {rounds}"),
        )
        settings[name] = values[faster(rates)]
        yield Trial(name, values, tuple(tuple(row) for row in rates), settings[name])


def measured(
    make: Callable[[Any], Loader], name: str, values: tuple[Any, ...], *, seconds: float, rounds: int
) -> Trial:
    """Rates of some values of a setting that is not for a tuner to change; the first stays chosen."""
    makers = [partial(make, value) for value in values]
    rates = played_in_turn(makers, seconds=seconds, rounds=rounds, report=lambda done: None)
    return Trial(name, values, tuple(tuple(row) for row in rates), values[0])


def played_in_turn(
    makers: list[Callable[[], Loader]], *, seconds: float, rounds: int, report: Callable[[int], None]
) -> list[list[float]]:
    """Images per second of some loaders, one list per loader, in rounds in which each is played for a while.

    There are fewer rounds where the time is up, but at least `MIN_ROUNDS`.
    """
    with ExitStack() as stack:
        players = [_Player(stack.enter_context(make())) for make in makers]
        rates: list[list[float]] = [[] for _ in players]
        end = time.perf_counter() + seconds
        for done in range(1, rounds + 1):
            # forth and back, so that none always comes after the same
            order = range(len(players)) if done % 2 else reversed(range(len(players)))
            for number in order:
                rates[number].append(players[number].play(seconds / (rounds * len(players))))
            report(done)
            if done >= MIN_ROUNDS and time.perf_counter() > end:
                break
        return rates


class _Player:
    """Plays a loader's batches, epoch after epoch, with pauses."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._batches = self._endless()
        # decoded already when a pause ends, and one that began meanwhile
        self._ready = loader.speed_settings["prefetch"] + 1
        next(self._batches)

    def play(self, seconds: float) -> float:
        """Images per second, over the rest of so many seconds after the batches that were ready."""
        end = time.perf_counter() + seconds
        for _ in range(self._ready):
            next(self._batches)
        self._wait()
        images, start = 0, time.perf_counter()
        end = max(end, start + _LEAST_S)
        while not images or time.perf_counter() < end:
            images += next(self._batches)
        self._wait()
        return images / (time.perf_counter() - start)

    def _endless(self) -> Iterator[int]:
        while True:
            for batch in self._loader:
                yield batch[0].shape[-4]  # images, behind their views

    def _wait(self) -> None:
        if self._loader.device.type == "cuda":
            torch.cuda.synchronize(self._loader.device)
