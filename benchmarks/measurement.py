"""Timing several things in turn."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from .cpu_time import cpu_seconds, machine_cpu_seconds, wait_until_idle
from .progress import Progress
from .rates import Rate

# A contender's batches are thrown away for this share of a turn, and for at least this many batches, so that what was
# made ready while others had their turn is not counted.
_WARM_SHARE = 0.25
_WARM_BATCHES = 6
_OFTEN = 4  # turns in each repeat of a contender that others are compared with


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
            images, begin, cpu, machine = 0, time.perf_counter(), cpu_seconds(), machine_cpu_seconds()
            for count in counts:
                images += count
                if time.perf_counter() - begin >= seconds:
                    break
            settle()
            wall, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
            others = max(machine_cpu_seconds() - machine - cpu, 0.0)
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
        begin, cpu, machine = time.perf_counter(), cpu_seconds(), machine_cpu_seconds()
        images = sum(self._batches())
        settle()
        wall, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
        return Turn(images, wall, cpu, others_s=max(machine_cpu_seconds() - machine - cpu, 0.0))


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
    often: Collection[str] = (),
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
        often: Those that others are compared with, by name. They have several turns in each repeat, spread over it,
            which count as one: the speed of a machine changes from turn to turn, and theirs is in most of the ratios.

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
        played: dict[str, list[Turn]] = {name: [] for name in contenders}
        for name in _order(contenders, often, random.Random(repeat)):
            if name in errors:
                continue
            progress.turn(f"repeat {repeat + 1}/{repeats}: {name}")
            before()
            turn = play(name, seconds)
            played[name] += [] if turn is None else [turn]
        for name in contenders.keys() - errors.keys():
            turns[name].append(_together(played[name]))
        now = {name: done[repeat] for name, done in turns.items() if len(done) > repeat}
        rates = ", ".join(f"{name} {turn.images / turn.wall_s:,.0f}" for name, turn in now.items())
        progress.line(f"repeat {repeat + 1}/{repeats} (images/s): {rates}")
    if failed is not None:
        failed.update(errors)
    kept = _comparable(turns, repeats)
    if not kept and errors:
        raise next(iter(errors.values()))
    return {name: _rate(name, done) for name, done in kept.items()}


def _order(names: Collection[str], often: Collection[str], chance: random.Random) -> Iterator[str]:
    """Turns of a repeat: names by chance, between which those that have several come again and again."""
    often = [name for name in names if name in often]
    others = [name for name in names if name not in often]
    others = chance.sample(others, len(others))
    for part in range(_OFTEN if often else 1):
        yield from chance.sample(often, len(often))
        yield from others[part :: _OFTEN if often else 1]


def _together(turns: Sequence[Turn]) -> Turn:
    """Turns of one contender as one."""
    waited = [turn.waited_s for turn in turns if turn.waited_s is not None]
    images, wall, cpu, others = (
        sum(getattr(turn, field) for turn in turns) for field in ("images", "wall_s", "cpu_s", "others_s")
    )
    return Turn(images, wall, cpu, sum(waited) if waited else None, others)


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
