"""What was measured: images per second and CPU seconds per image, with their spread, and the ratios of these."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

_FEW_S = 1e-5  # CPU seconds of an image that are told in microseconds, as milliseconds would have hardly a digit


@dataclass(frozen=True)
class Rate:
    """One contender over some repeats.

    Attributes:
        name: The contender.
        images_per_s: One value per repeat.
        cpu_s_per_image: CPU seconds of all threads and child processes, one value per repeat.
        waiting: Share of the time that a consumer waited for data, one value per repeat; empty without one.
        others: Cores that other programs kept busy meanwhile, on average, one value per repeat.
    """

    name: str
    images_per_s: tuple[float, ...]
    cpu_s_per_image: tuple[float, ...]
    waiting: tuple[float, ...] = ()
    others: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """The middle of the repeats, in images/s."""
        return statistics.median(self.images_per_s)

    @property
    def spread(self) -> tuple[float, float]:
        """The slowest and the fastest repeat, in images/s."""
        return min(self.images_per_s), max(self.images_per_s)

    @property
    def cpu_s(self) -> float:
        """The middle of the CPU seconds per image."""
        return statistics.median(self.cpu_s_per_image)

    def __str__(self) -> str:
        low, high = self.spread
        cpu = f"{1e3 * self.cpu_s:8.3f} ms CPU/image" if self.cpu_s else ""
        if 0 < self.cpu_s < _FEW_S:
            cpu = f"{1e6 * self.cpu_s:8.3f} us CPU/image"
        return f"{self.name:<44} {self.median:>10,.0f} img/s   ({low:,.0f} to {high:,.0f}) {cpu}"


@dataclass(frozen=True)
class Ratio:
    """Images/s of one contender over another's: within each repeat, so that what the machine did to both cancels out.

    Attributes:
        name: "a / b".
        median: Over the repeats.
        low: Least of the repeats.
        high: Greatest of the repeats.
    """

    name: str
    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name:<76} {self.median:6.2f}   ({self.low:.2f} to {self.high:.2f})"


def ratio(above: Rate, below: Rate) -> Ratio:
    """`above` over `below`, repeat by repeat."""
    values = [a / b for a, b in zip(above.images_per_s, below.images_per_s, strict=True)]
    return Ratio(f"{above.name} / {below.name}", statistics.median(values), min(values), max(values))


def cpu_ratio(above: Rate, below: Rate) -> Ratio:
    """Images per CPU second of `above` over those of `below`, repeat by repeat."""
    tick = 1e-9  # what took less than a tick of the CPU clock counts as 0 seconds
    pairs = zip(above.cpu_s_per_image, below.cpu_s_per_image, strict=True)
    values = [max(b, tick) / max(a, tick) for a, b in pairs]
    name = f"{above.name} / {below.name}, per CPU second"
    return Ratio(name, statistics.median(values), min(values), max(values))
