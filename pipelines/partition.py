"""Which positions of an epoch's global order a rank plays at each step."""

from __future__ import annotations

from typing import NamedTuple

from . import checks

LAST_BATCH = ("drop", "fill", "keep")


class Step(NamedTuple):
    """Positions [start, start + count) of the global order; those past the end wrap to its beginning."""

    start: int
    count: int


def partition(num_samples: int, batch_size: int, rank: int, world_size: int, last_batch: str) -> list[Step]:
    """The steps of one rank; every rank gets the same number of them, none of them empty.

    A step of all ranks together takes consecutive positions, so a rank's batch is a run of positions.

    Args:
        num_samples: Samples in the data set.
        batch_size: Samples of a batch on one rank, >= 1.
        rank: This rank, in [0, world_size).
        world_size: Number of ranks, >= 1.
        last_batch: What becomes of the samples that do not fill a batch on every rank. "drop" leaves them out of
            this epoch; "fill" plays them and fills up with samples from the beginning of the order; "keep" plays
            them in shorter batches, so that every sample is played exactly once over all ranks.

    Raises:
        ValueError: if an argument is out of range, or no step is possible.
    """
    checks.whole("batch_size", batch_size)
    checks.whole("world_size", world_size)
    checks.choice("last_batch", last_batch, LAST_BATCH)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
    whole = batch_size * world_size
    full_steps, rest = divmod(num_samples, whole)
    if last_batch == "fill" and rest:
        full_steps, rest = full_steps + 1, 0
    steps = [Step(step * whole + rank * batch_size, batch_size) for step in range(full_steps)]
    if last_batch == "drop":
        if not steps:
            raise ValueError(
                f"batch_size must be at most a rank's share of the samples, {num_samples // world_size} "
                f"({num_samples} samples on {world_size} rank(s)), got {batch_size}; "
                "use a smaller batch or last_batch='fill'"
            )
        return steps
    return _spread_rest(steps, rest, rank, world_size, full_steps * whole)


def _spread_rest(steps: list[Step], rest: int, rank: int, world_size: int, start: int) -> list[Step]:
    """Add the `rest` samples from `start` on, evenly over the ranks."""
    if not rest:
        return steps
    if rest >= world_size:
        return [*steps, _share(start, rest, rank, world_size)]
    # Too few for one each: play them together with the last full step, in two steps of about half a batch.
    if not steps or steps[-1].count < 2:
        raise ValueError(
            f"the last step must have a sample for each of {world_size} ranks, got {rest}; "
            "use a batch_size of at least 2, or fewer ranks"
        )
    start -= steps[-1].count * world_size
    rest += steps[-1].count * world_size
    half = rest // 2
    return [*steps[:-1], _share(start, half, rank, world_size), _share(start + half, rest - half, rank, world_size)]


def _share(start: int, count: int, rank: int, world_size: int) -> Step:
    first, last = rank * count // world_size, (rank + 1) * count // world_size
    return Step(start + first, last - first)
