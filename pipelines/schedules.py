"""Values that change in the course of training.

Time is counted in epochs from 0 and may be fractional: step 30 of 120 in epoch 7 is time 7.25. Every schedule is a
frozen dataclass with two methods: `at(epoch)`, its value at a time, and `turns()`, the times between which its value
only rises or only falls, so that the values there are the extremes of all that it reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepDecay:
    """`value` before epoch `epoch`, `value / factor` from it on.

    SA App. B.1 divides sigma by 1000 for the last 20 epochs of training on CIFAR-100.

    Attributes:
        value: The value at first, > 0.
        epoch: First epoch with the smaller value, counted from 0.
        factor: What `value` is divided by, > 0.
    """

    value: float
    epoch: int
    factor: float = 1000.0

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise ValueError(f"value must be positive, got {self.value}")
        if self.epoch < 0:
            raise ValueError(f"epoch must not be negative, got {self.epoch}")
        if not self.factor > 0:
            raise ValueError(f"factor must be positive, got {self.factor}")

    def at(self, epoch: float) -> float:
        """The value at a time in epochs; it stays the same within an epoch."""
        return self.value if epoch < self.epoch else self.value / self.factor

    def turns(self) -> tuple[float, ...]:
        """Times between which the value only rises or only falls."""
        return (0, self.epoch)


@dataclass(frozen=True)
class _Ramp:
    """From `start` to `end`, constant before and after.

    Attributes:
        start: Value until the beginning of `first_epoch`.
        end: Value from the beginning of `last_epoch` on.
        first_epoch: Time from which the value moves, in epochs >= 0.
        last_epoch: Time at which it arrives, in epochs, > first_epoch.
    """

    start: float
    end: float
    first_epoch: float
    last_epoch: float

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}")
        if not self.first_epoch >= 0:
            raise ValueError(f"first_epoch must not be negative, got {self.first_epoch}")
        if not self.first_epoch < self.last_epoch < math.inf:
            raise ValueError(f"last_epoch must be after first_epoch, {self.first_epoch}, got {self.last_epoch}")

    def turns(self) -> tuple[float, ...]:
        """Times between which the value only rises or only falls."""
        return (self.first_epoch, self.last_epoch)

    def _progress(self, epoch: float) -> float:
        return min(max((epoch - self.first_epoch) / (self.last_epoch - self.first_epoch), 0.0), 1.0)

    def _between(self, progress: float) -> float:
        # exact at both ends, which start + progress * (end - start) is not
        return (1.0 - progress) * self.start + progress * self.end


@dataclass(frozen=True)
class Linear(_Ramp):
    """From `start` to `end` along a straight line between two times in epochs, constant before and after."""

    def at(self, epoch: float) -> float:
        """The value at a time in epochs."""
        return self._between(self._progress(epoch))


@dataclass(frozen=True)
class Cosine(_Ramp):
    """From `start` to `end` along half a period of a cosine, constant before and after (Loshchilov & Hutter 2017)."""

    def at(self, epoch: float) -> float:
        """The value at a time in epochs."""
        return self._between((1.0 - math.cos(math.pi * self._progress(epoch))) / 2.0)


Schedule = StepDecay | Linear | Cosine
Scheduled = float | Schedule


def value_at(scheduled: Scheduled, epoch: float) -> float:
    """The value of a number or of a schedule at a time in epochs."""
    return scheduled.at(epoch) if isinstance(scheduled, Schedule) else scheduled


def turns(scheduled: Scheduled) -> tuple[float, ...]:
    """Times between which a number or a schedule only rises or only falls."""
    return scheduled.turns() if isinstance(scheduled, Schedule) else (0,)


def reached(scheduled: Scheduled) -> tuple[float, ...]:
    """Values that include the smallest and the largest that a number or a schedule ever has."""
    return tuple(value_at(scheduled, epoch) for epoch in turns(scheduled))


def check_reached(rule: Callable[[str, float], None], name: str, scheduled: Scheduled) -> None:
    """Raise ValueError unless a number, or all that a schedule reaches, keeps a rule of `checks`.

    Args:
        rule: A check that holds between two values if it holds for both, such as `checks.share`.
        name: What the value is called.
        scheduled: The number or schedule.
    """
    for value in reached(scheduled):
        rule(name, value)
