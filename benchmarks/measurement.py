"""Timing several things in turn: images per second and CPU seconds per image, with their spread."""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

# A contender's batches are thrown away for this share of a turn, and for at least this many batches, so that what was
# made ready while others had their turn is not counted.
_WARM_SHARE = 0.25
_WARM_BATCHES = 6
_IDLE_S, _IDLE_SHARE, _PATIENCE_S = 0.1, 0.25, 5.0  # less of a core than this share for so long is nothing
_LINE_EVERY_S = 5.0  # in a log, of what is being measured
_FEW_S = 1e-5  # CPU seconds of an image that are told in microseconds, as milliseconds would have hardly a digit


@dataclass(frozen=True)
class Turn:
    """What was counted while one contender played.

    Attributes:
        images: Images that came out.
        wall_s: Seconds that passed.
        cpu_s: CPU seconds of all threads of the process and its children.
        waited_s: Seconds of `wall_s` that a consumer waited for the next batch, where there is one.
        others_s: CPU seconds that other programs on the machine spent meanwhile.
    """

    images: int
    wall_s: float
    cpu_s: float
    waited_s: float | None = None
    others_s: float = 0.0


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


# Makes one pass over something and yields the number of images of each batch.
Batches = Callable[[], Iterable[int]]


class Contender(Protocol):
    """Something that can be timed."""

    def play(self, seconds: float) -> Turn:
        """Play for some seconds, to the end of a batch, and count."""
        ...


class Here:
    """A contender that plays in this process.

    Args:
        batches: One pass; it is made again and again until the time is over.
        waited: Seconds so far that the consumer in `batches` waited for data, if there is one.
    """

    def __init__(self, batches: Batches, waited: Callable[[], float] | None = None) -> None:
        self._batches, self._waited = batches, waited

    def play(self, seconds: float) -> Turn:
        """Play for some seconds, to the end of a batch, and count."""
        with closing(_endless(self._batches)) as counts:
            begin, batches = time.perf_counter(), 0
            for _ in counts:
                batches += 1
                if batches >= _WARM_BATCHES and time.perf_counter() - begin >= _WARM_SHARE * seconds:
                    break
            settle()
            waited = self._waited() if self._waited else 0.0
            images, begin, cpu, machine = 0, time.perf_counter(), cpu_seconds(), _machine_cpu_seconds()
            for count in counts:
                images += count
                if time.perf_counter() - begin >= seconds:
                    break
            settle()
            wall, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
            others = max(_machine_cpu_seconds() - machine - cpu, 0.0)
            return Turn(images, wall, cpu, self._waited() - waited if self._waited else None, others)


class Whole:
    """A contender that plays one pass, from its beginning to its end, however long that takes.

    Args:
        batches: The pass.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def play(self, seconds: float) -> Turn:
        """Play one pass and count."""
        begin, cpu, machine = time.perf_counter(), cpu_seconds(), _machine_cpu_seconds()
        images = sum(self._batches())
        settle()
        wall, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
        return Turn(images, wall, cpu, others_s=max(_machine_cpu_seconds() - machine - cpu, 0.0))


def _endless(batches: Batches) -> Generator[int, None, None]:
    while True:
        empty = True
        for count in batches():
            empty = False
            yield count
        if empty:
            raise ValueError("a benchmark must have at least one batch, got none; use more images or a smaller batch")


def settle() -> None:
    """Wait until a GPU has done what it was told, if one is in use."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


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
        begin, before, waits = time.perf_counter(), cpu_seconds(), _waits_for_cores()
        time.sleep(_IDLE_S)
        waited = sum(wait - waits.get(thread, 0.0) for thread, wait in _waits_for_cores().items())
        if cpu_seconds() - before + waited < _IDLE_SHARE * (time.perf_counter() - begin):
            return True
    return False


def _waits_for_cores() -> dict[str, float]:
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


def _machine_cpu_seconds() -> float:
    """CPU seconds so far of everything that runs on the machine."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


class Progress:
    """Tells on a stream what is being measured: in place on a terminal, else a line per repeat and now and then."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream or sys.stderr
        self._line_at = time.perf_counter()

    def turn(self, text: str) -> None:
        """What is being measured right now; without a terminal only if nothing was said for a while."""
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{text}")
            self._stream.flush()
        elif time.perf_counter() - self._line_at >= _LINE_EVERY_S:
            self.line(text)

    def stage(self, text: str) -> None:
        """What is being done right now and takes a while."""
        (self.turn if self._stream.isatty() else self.line)(text)

    def line(self, text: str) -> None:
        """Something to keep."""
        clear = "\r\x1b[2K" if self._stream.isatty() else ""
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()
        self._line_at = time.perf_counter()


def check_turns(seconds: float, repeats: int) -> None:
    """Raise ValueError for turns of no length, or none at all."""
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")


def measure(
    contenders: Mapping[str, Contender],
    *,
    seconds: float,
    repeats: int,
    progress: Progress,
    before: Callable[[], None] = lambda: None,
    failed: dict[str, Exception] | None = None,
) -> dict[str, Rate]:
    """Time contenders one after another, `repeats` times over, after one short turn of each to warm up.

    Taking turns is what makes the ratios mean something on a machine that others use too. The order changes from repeat
    to repeat, alike in every run, so that none always follows the same one.

    Args:
        contenders: What to time, by name.
        seconds: How long a turn lasts, besides its own warm-up.
        repeats: How often, >= 1; five give a median with some meaning.
        progress: Told what is going on.
        before: Called before each turn, outside of what is timed.
        failed: Gets the errors of contenders that fail, by name, whose turns end there; None to raise them at once.

    Returns:
        By name, in order, the rates of those that had all their turns; if none had, as after an error that leaves a
        GPU useless to its process, of those that had any, over the repeats that all of them had.

    Raises:
        Exception: the first error of a contender, without `failed` or if no turn was played.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    errors: dict[str, Exception] = {}
    patient = True

    def play(name: str, length: float) -> Turn | None:
        nonlocal patient
        patient = patient and wait_until_idle()  # what never rests is not waited for again
        try:
            return contenders[name].play(length)
        except Exception as error:
            if failed is None:
                raise
            progress.line(f"{name} failed: {error}")
            errors[name] = error
            return None

    for number, name in enumerate(contenders):
        tell = progress.turn if number else progress.stage
        tell(f"building and warming up {number + 1}/{len(contenders)}: {name}")
        play(name, seconds / 10)
    for repeat in range(repeats):
        if len(errors) == len(contenders):
            break
        for name in random.Random(repeat).sample(list(contenders), len(contenders)):
            if name in errors:
                continue
            progress.turn(f"repeat {repeat + 1}/{repeats}: {name}")
            before()
            turn = play(name, seconds)
            turns[name] += [] if turn is None else [turn]
        now = {name: done[repeat] for name, done in turns.items() if len(done) > repeat}
        rates = ", ".join(f"{name} {turn.images / turn.wall_s:,.0f}" for name, turn in now.items())
        progress.line(f"repeat {repeat + 1}/{repeats} (images/s): {rates}")
    if failed is not None:
        failed.update(errors)
    kept = _comparable(turns, repeats)
    if not kept and errors:
        raise next(iter(errors.values()))
    return {name: _rate(name, done) for name, done in kept.items()}


def _comparable(turns: dict[str, list[Turn]], repeats: int) -> dict[str, list[Turn]]:
    """Those contenders that had all turns, or else those that had any, cut to as many turns each."""
    whole = {name: done for name, done in turns.items() if len(done) == repeats}
    some = {name: done for name, done in turns.items() if done}
    least = min(map(len, some.values()), default=0)
    return whole or {name: done[:least] for name, done in some.items()}


def _rate(name: str, turns: list[Turn]) -> Rate:
    waiting = tuple(turn.waited_s / turn.wall_s for turn in turns if turn.waited_s is not None)
    rates, cpu = [turn.images / turn.wall_s for turn in turns], [turn.cpu_s / turn.images for turn in turns]
    return Rate(name, tuple(rates), tuple(cpu), waiting, tuple(turn.others_s / turn.wall_s for turn in turns))


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
