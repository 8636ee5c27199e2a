"""Which positions of an epoch's global order a rank plays at each step."""

from __future__ import annotations

from typing import NamedTuple

from . import checks

LAST_BATCH = ("drop", "fill", "keep")


class Step(NamedTuple):
    """One rank's part of a step.

    Attributes:
        start: First position in the global order that this rank plays; those past the end wrap to the beginning.
        count: How many it plays from there on.
        begin: First position that the step of all ranks together plays.
        end: First position that the next step of all ranks plays.
    """

    start: int
    count: int
    begin: int
    end: int


def partition(
    num_samples: int, batch_size: int, rank: int, world_size: int, last_batch: str, *, position: int = 0
) -> list[Step]:
    """The steps of one rank; every rank gets the same number of them, none of them empty.

    A step of all ranks together takes consecutive positions, so a rank's batch is a run of positions, and the rest of
    an epoch can be played by another number of ranks.

    Args:
        num_samples: Samples in the data set.
        batch_size: Samples of a batch on one rank, >= 1.
        rank: This rank, in [0, world_size).
        world_size: Number of ranks, >= 1.
        last_batch: What becomes of the samples that do not fill a batch on every rank. "drop" leaves them out of
            this epoch; "fill" plays them and fills up with samples from the beginning of the order; "keep" plays
            them in shorter batches, so that every sample is played exactly once over all ranks.
        position: Where to begin, in [0, num_samples]: the positions before it were played. From the end of a step on
            these are the steps that come after it.

    Returns:
        The steps; none only if the rest of an epoch from `position` on is too small for one.

    Raises:
        ValueError: if an argument is out of range, or no step is possible.
    """
    checks.whole("batch_size", batch_size)
    checks.whole("world_size", world_size)
    checks.choice("last_batch", last_batch, LAST_BATCH)
    checks.whole("rank", rank, least=0)
    if rank >= world_size:
        raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
    if not 0 <= position <= num_samples:
        raise ValueError(f"position must be in [0, {num_samples}], got {position}")
    whole = batch_size * world_size
    full_steps, rest = divmod(num_samples - position, whole)
    if last_batch == "fill" and rest:
        full_steps, rest = full_steps + 1, 0
    begins = range(position, position + full_steps * whole, whole)
    steps = [Step(begin + rank * batch_size, batch_size, begin, begin + whole) for begin in begins]
    if last_batch == "drop":
        if not steps and not position:
            if num_samples < world_size:
                raise _too_few(num_samples, world_size, "or last_batch='fill'")
            raise ValueError(
                f"batch_size must be at most a rank's share of the samples, {num_samples // world_size} "
                f"({num_samples} samples on {world_size} rank(s)), got {batch_size}; "
                "use a smaller batch or last_batch='fill'"
            )
        return steps
    return _spread_rest(steps, rest, rank, world_size, begins.stop)


def _spread_rest(steps: list[Step], rest: int, rank: int, world_size: int, begin: int) -> list[Step]:
    """Add the `rest` samples from `begin` on, evenly over the ranks."""
    if not rest:
        return steps
    if rest >= world_size:
        return [*steps, _share(begin, rest, rank, world_size)]
    # Too few for one each: play them together with the last full step, in two steps of about half a batch.
    if not steps:
        raise _too_few(rest, world_size)
    if steps[-1].count < 2:
        raise ValueError(
            f"the last step must have a sample for each of {world_size} ranks, got {rest}; "
            "use a batch_size of at least 2, or fewer ranks"
        )
    begin -= steps[-1].count * world_size
    rest += steps[-1].count * world_size
    half = rest // 2
    return [*steps[:-1], _share(begin, half, rank, world_size), _share(begin + half, rest - half, rank, world_size)]


def _too_few(samples: int, world_size: int, *other: str) -> ValueError:
    """What no batch size helps against, and `other` advice."""
    advice = " ".join([f"use at most {samples} rank(s)", *other])
    return ValueError(f"a step must have a sample for each of {world_size} ranks, got {samples}; {advice}")


def _share(begin: int, count: int, rank: int, world_size: int) -> Step:
    first, last = rank * count // world_size, (rank + 1) * count // world_size
    return Step(begin + first, last - first, begin, begin + count)
