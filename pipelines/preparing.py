"""Making batches ready for the graph: bytes read, shapes known, everything drawn and computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .draws import Draws, permutation
from .faults import ErrorBudgetError, ErrorLog
from .heap import Heap
from .partition import Step
from .plan import GraphWork, Plan, plan
from .reading import SampleReader
from .recipe import Recipe
from .shapes import ImageShapes, unexplained
from .sources import Source


class Epoch(NamedTuple):
    """An epoch: its number, and its samples in their global order, int64 (num_samples,)."""

    number: int
    order: np.ndarray


class Fetched(NamedTuple):
    """The samples of N positions: their indices, int64 (N,), and bytes; what is known to fail has none, or any."""

    index: np.ndarray
    images: list[np.ndarray] | np.ndarray


@dataclass(frozen=True)
class Prepared:
    """A batch of N samples that is ready for the graph.

    Attributes:
        step: The positions that it plays.
        index: The samples, int64 (N,).
        images: Their encoded bytes, or their raw pixels.
        plan: The numbers.
        epoch: The epoch.
        fetched: What it was made of.
        stand_in: Whether the batch has no good sample of its own, and would be left out if there could be none.
    """

    step: Step
    index: np.ndarray
    images: list[np.ndarray] | np.ndarray
    plan: Plan
    epoch: Epoch
    fetched: Fetched
    stand_in: bool = False


class Preparer:
    """Prepares the batches of a data set for a recipe.

    The place of a sample that fails is taken by the next good one of the batch, with the draws of that place; or, with
    `leave_out`, by none. In a batch without a good one it is taken by the next good sample of the epoch.

    Args:
        source: The data set.
        recipe: What is done to each image.
        batch_size: Largest number of samples of a batch.
        image_size: Side of the square output in pixels.
        errors: What becomes of samples that cannot be read or decoded.
        seed: Seed of order and draws.
        num_threads: CPU threads for reading headers.
        leave_out: Whether batches are shorter by the samples that fail.
        work: What the graph does.
    """

    def __init__(  # noqa: PLR0913 - one parameter per independent choice
        self,
        source: Source,
        recipe: Recipe,
        batch_size: int,
        image_size: int,
        errors: ErrorLog,
        *,
        seed: int,
        num_threads: int,
        leave_out: bool,
        work: GraphWork,
    ) -> None:
        self._source, self._recipe, self._size, self._seed = source, recipe, image_size, seed
        self._errors, self._leave_out, self._work = errors, leave_out, work
        self._reader, self._heap = SampleReader(source), Heap()
        self._new_shapes = lambda: ImageShapes(source, batch_size, num_threads)
        self._shapes = self._new_shapes()

    def of_epoch(self, number: int, *, shuffle: bool) -> Callable[[Step], Prepared]:
        """A function that prepares the steps of an epoch.

        Args:
            number: Number of the epoch.
            shuffle: Whether the epoch has an order of its own.
        """
        count = len(self._source)
        epoch = Epoch(number, permutation(self._seed, number, count) if shuffle else np.arange(count))
        return lambda step: self._prepare(epoch, step)

    def blame(self, prepared: Prepared, error: RuntimeError) -> bool:
        """Find and record the samples of a batch that the graph failed on, so that `again` goes without them.

        Returns:
            Whether there are any.

        Raises:
            Exception: the one of the first of them, unless such samples are skipped; `error` for raw images.
        """
        if self._source.raw_shape is not None:
            raise error
        index, images = prepared.fetched
        rows = np.flatnonzero(~self._errors.known(index))
        failures = self._shapes.unreadable(index[rows], [images[row] for row in rows])
        for row, failure in failures.items():
            self._errors.add(int(index[rows[row]]), failure.reason, failure)
        return bool(failures)

    def unexplained(self, prepared: Prepared, error: RuntimeError) -> Exception:
        """For a graph that failed on a batch of which no sample is to blame."""
        index = prepared.fetched.index
        return unexplained(self._source, index[~self._errors.known(index)].tolist(), error)

    def again(self, prepared: Prepared) -> Prepared:
        """The batch without the samples that are now known to fail; everything else about it stays."""
        return self._assemble(prepared.epoch, prepared.step, prepared.fetched)

    def doing(self) -> str:
        """What the thread that prepares batches is doing, in a few words, without touching a file."""
        index = self._reader.reading
        if index is None:
            return "preparing one"
        source = self._source
        path = source.files[int(source.file[index])]
        return f"reading {path}" + ("" if source.shard_set is None else f" at offset {int(source.offset[index])}")

    def progress(self) -> int:
        """Samples that have been read so far."""
        return self._reader.count

    def abandon(self) -> None:
        """Leave what reads to a thread that hangs in it, or to another process, and go on with a new one."""
        self._reader, self._shapes = self._reader.another(), self._new_shapes()

    def close(self) -> None:
        """Close the files, and the graph that reads headers."""
        self._reader.close()
        self._shapes.close()

    def _prepare(self, epoch: Epoch, step: Step) -> Prepared:
        self._heap.trim_now_and_then()
        index = epoch.order[np.arange(step.start, step.start + step.count) % len(epoch.order)]
        return self._assemble(epoch, step, self._fetch(index, self._reader))

    def _fetch(self, index: np.ndarray, reader: SampleReader) -> Fetched:
        """Read some samples and check their headers; those that fail are recorded."""
        wanted = np.flatnonzero(~self._errors.known(index))
        images, failures = reader.read(index[wanted])
        for row, failure in failures.items():
            self._errors.add(int(index[wanted[row]]), failure.reason, failure)
        if isinstance(images, list):
            read = [row for row in range(len(wanted)) if row not in failures]
            unreadable = self._shapes.check(index[wanted[read]], [images[row] for row in read])
            for row, failure in unreadable.items():
                self._errors.add(int(index[wanted[read[row]]]), failure.reason, failure)
        if len(wanted) == len(index):
            return Fetched(index, images)
        if isinstance(images, list):
            spread = [np.empty(0, np.uint8)] * len(index)
            for row, image in zip(wanted.tolist(), images, strict=True):
                spread[row] = image
            return Fetched(index, spread)
        pixels = np.zeros((len(index), *images.shape[1:]), np.uint8)
        pixels[wanted] = images
        return Fetched(index, pixels)

    def _assemble(self, epoch: Epoch, step: Step, fetched: Fetched) -> Prepared:
        index, images = fetched
        good = ~self._errors.known(index)
        drawn = None  # rows of the step that are played, for their draws
        if not good.all():
            if good.any():
                rows = np.flatnonzero(good)
                if self._leave_out:
                    drawn = rows
                else:  # the next good row, from the last one on the first
                    rows = rows[np.searchsorted(rows, np.arange(len(index))) % len(rows)]
                index = index[rows]
                images = [images[row] for row in rows] if isinstance(images, list) else images[rows]
            else:
                count, drawn = (1, np.zeros(1, np.int64)) if self._leave_out else (len(index), None)
                other = self._stand_in(epoch, step)
                index, images = np.repeat(other.index, count), [*other.images] * count
                images = images if self._source.raw_shape is None else np.stack(images)
        shape = self._shapes.of(index)
        if not self._recipe.crop.resizes:
            self._check_fixed_size(index, shape)
        views = self._recipe.views
        draws = Draws(self._seed, epoch.number, step.start, step.count, views, rows=drawn)
        shape = np.tile(shape[0], views), np.tile(shape[1], views)
        # of the step of all ranks, so that schedules go by what was played and not by who played it
        time = epoch.number + step.begin / len(epoch.order)
        numbers = plan(self._recipe, draws, shape, size=self._size, epoch=time, work=self._work)
        return Prepared(step, index, images, numbers, epoch, fetched, stand_in=self._leave_out and not good.any())

    def _stand_in(self, epoch: Epoch, step: Step) -> Fetched:
        """The first sample after a step's, in the epoch's order, that can be read and decoded."""
        raw = self._source.raw_shape is not None
        # What follows a failure of the graph runs beside the thread that reads; raw images never fail there.
        reader = self._reader if raw else self._reader.another()
        count = len(epoch.order)
        for position in range(step.start + step.count, step.start + step.count + count):
            index = epoch.order[[position % count]]
            if self._errors.known(index)[0]:
                continue
            fetched = self._fetch(index, reader)
            if not raw and not self._errors.known(index)[0]:
                for failure in self._shapes.unreadable(index, list(fetched.images)).values():
                    self._errors.add(int(index[0]), failure.reason, failure)
            if not self._errors.known(index)[0]:
                return fetched
        raise ErrorBudgetError(f"data must hold a sample that can be read, got none of {count} in {self._source.root}")

    def _check_fixed_size(self, index: np.ndarray, shape: tuple[np.ndarray, np.ndarray]) -> None:
        wrong = np.flatnonzero((shape[0] != self._size) | (shape[1] != self._size))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"image_size must be the images' own size with {type(self._recipe.crop).__name__}, got "
                f"{self._size} for {shape[0][row]}x{shape[1][row]} in {self._source.describe(int(index[row]))}; "
                "use a crop that resizes, such as SoftCrop"
            )
