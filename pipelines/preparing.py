"""Making batches ready for the graph: bytes read, shapes known, everything drawn and computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .draws import Draws, permutation
from .partition import Step
from .plan import Plan, plan
from .reading import SampleReader
from .recipe import Recipe
from .shapes import ImageShapes, first_unreadable
from .sources import Source


@dataclass(frozen=True)
class Prepared:
    """A batch of N samples that is ready for the graph.

    Attributes:
        step: The positions that it plays.
        index: The samples, int64 (N,).
        images: Their encoded bytes, or their raw pixels, once for each view.
        plan: The numbers.
    """

    step: Step
    index: np.ndarray
    images: list[np.ndarray] | np.ndarray
    plan: Plan


class Preparer:
    """Prepares the batches of a data set for a recipe.

    Args:
        source: The data set.
        recipe: What is done to each image.
        batch_size: Largest number of samples of a batch.
        image_size: Side of the square output in pixels.
        seed: Seed of order and draws.
        num_threads: CPU threads for reading headers.
    """

    def __init__(
        self, source: Source, recipe: Recipe, batch_size: int, image_size: int, *, seed: int, num_threads: int
    ) -> None:
        self._source, self._recipe, self._size, self._seed = source, recipe, image_size, seed
        self._reader = SampleReader(source)
        self._shapes = ImageShapes(source, batch_size, num_threads)

    def of_epoch(self, epoch: int, *, shuffle: bool) -> Callable[[Step], Prepared]:
        """A function that prepares the steps of an epoch.

        Args:
            epoch: Number of the epoch.
            shuffle: Whether the epoch has an order of its own.
        """
        count = len(self._source)
        order = permutation(self._seed, epoch, count) if shuffle else np.arange(count)
        return lambda step: self._prepare(epoch, order, step)

    def explain(self, prepared: Prepared, error: RuntimeError) -> Exception:
        """The exception to raise for a batch that the graph failed on."""
        if self._source.raw_shape is not None:
            return error
        # every view has the same bytes, so the first one's tell what is wrong
        images = list(prepared.images)[: len(prepared.index)]
        return first_unreadable(self._source, prepared.index.tolist(), images, error)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _prepare(self, epoch: int, order: np.ndarray, step: Step) -> Prepared:
        # of the step of all ranks, so that schedules go by what was played and not by who played it
        time = epoch + step.begin / len(order)
        positions = np.arange(step.start, step.start + step.count) % len(order)
        index = order[positions]
        images = self._reader.read(index)
        shape = self._shapes.of(index, images)
        if not self._recipe.crop.resizes:
            self._check_fixed_size(index, shape)
        views = self._recipe.views
        draws = Draws(self._seed, epoch, step.start, step.count, views)
        raw = self._source.raw_shape is not None
        if views > 1:  # the same bytes again for each view
            shape = np.tile(shape[0], views), np.tile(shape[1], views)
            images = images * views if isinstance(images, list) else np.concatenate([images] * views)
        return Prepared(step, index, images, plan(self._recipe, draws, shape, size=self._size, epoch=time, raw=raw))

    def _check_fixed_size(self, index: np.ndarray, shape: tuple[np.ndarray, np.ndarray]) -> None:
        wrong = np.flatnonzero((shape[0] != self._size) | (shape[1] != self._size))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"image_size must be the images' own size with {type(self._recipe.crop).__name__}, got "
                f"{self._size} for {shape[0][row]}x{shape[1][row]} in {self._source.describe(int(index[row]))}; "
                "use a crop that resizes, such as SoftCrop"
            )
