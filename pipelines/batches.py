"""From the graph's output and a plan to the batch that a user gets."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from .. import softops
from ..softops import Window
from .finishing import Finisher
from .output import Output
from .plan import Plan
from .recipe import Recipe
from .sources import Source
from .threads import RowThreads
from .uploads import uploaded


@lru_cache
def _batch_type(names: tuple[str, ...]) -> type:
    """The type of batches with these fields, which can be pickled although it is made here."""
    kind: Any = namedtuple("Batch", names)
    kind.__reduce__ = lambda batch: (_batch, (batch._fields, *batch))
    return kind


def _batch(names: tuple[str, ...], *fields: Any) -> Any:
    """What was pickled."""
    return _batch_type(names)(*fields)


class BatchBuilder:
    """Finishes batches: the steps that come after the graph, labels, confidence, and what was asked for beside them.

    Args:
        source: The data set.
        recipe: What is done to each image.
        size: Side of the images in pixels.
        device: Where batches lie.
        output: Type and layout of the images.
        threads: Threads for what is done after the graph on a CPU.
        softening: What confidences soften in soft targets, one of `softops.SOFTENINGS`; None for labels.
        extra: What batches tell beside images and labels or targets, in this order: "confidence", "iou" of several
            views, "index", the samples' positions in the data set, and "details", what was drawn.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        size: int,
        device: torch.device,
        output: Output,
        *,
        threads: RowThreads,
        softening: str | None,
        extra: Sequence[str],
    ) -> None:
        self._source, self._recipe, self._device, self._softening = source, recipe, device, softening
        self._output, self._finisher = output, Finisher(size, device, threads)
        self._extra = extra
        self._type: Any = _batch_type(("images", "targets" if softening else "labels", *extra))

    def build(self, images: torch.Tensor, plan: Plan, index: np.ndarray) -> Any:
        """Finish a batch.

        Args:
            images: Output of the graph, (V * N, 3, S, S), or (V * N, S, S, 3) with channels last; changed in place.
            plan: Its numbers.
            index: The samples, int64 (N,).
        """
        images = self._finished(self._output.channels_second(images), plan)
        images = images.to(self._output.dtype)  # keeps the layout; no copy where the graph has written that type
        labels = torch.from_numpy(self._source.labels[index])
        if self._softening:
            fields = [self._by_view(self._targets(labels.repeat(plan.views), plan))]
        else:
            fields = [labels]
        if "confidence" in self._extra:
            confidence = softops.confidence(plan.certainty, len(self._source.classes))
            fields.append(self._by_view(torch.from_numpy(confidence)))
        if "iou" in self._extra:
            fields.append(torch.from_numpy(self._overlaps(plan.window)))
        if "index" in self._extra:
            fields.append(torch.from_numpy(index))
        fields = [self._by_view(images), *(uploaded(field, self._device) for field in fields)]
        if "details" in self._extra:
            fields.append({name: self._by_view(array) for name, array in plan.details().items()})
        return self._type(*fields)

    def _finished(self, images: torch.Tensor, plan: Plan) -> torch.Tensor:
        """The steps that come after the graph."""
        if plan.patches is not None:
            self._finisher.occlude(images, plan.patches)
        if plan.mixing is not None:
            images = self._finisher.mix(images, plan.mixing)
        if self._recipe.noise is not None and plan.noise is not None:
            amplitude, seeds = plan.noise
            self._finisher.add_noise(images, amplitude * np.float32(self._recipe.noise.pixel_sigma), seeds)
        if plan.mollification is not None:
            self._finisher.mollify(images, plan.mollification)
        return images

    def _targets(self, labels: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Soft targets, float32 (V * N, K), or (V * N, K + 1) with an extra class.

        Args:
            labels: int64 (V * N,).
            plan: The batch's numbers.
        """
        targets = self._weighted(labels, plan.certainty)
        if plan.mixing is not None and plan.mixed_certainty is not None:
            share, rows = torch.from_numpy(plan.mixing.share), torch.from_numpy(plan.mixing.row)
            targets = torch.zeros_like(targets)
            for column in range(rows.shape[1]):
                brought = self._weighted(labels[rows[:, column]], plan.mixed_certainty[:, column])
                targets += share[:, column, None] * brought
        if plan.gamma is not None and self._recipe.mollify is not None:
            gamma, label = torch.from_numpy(plan.gamma), self._recipe.mollify.label
            targets = softops.mollified_targets(targets, targets.sum(dim=1), gamma, label=label)
        return targets

    def _weighted(self, labels: torch.Tensor, certainty: np.ndarray) -> torch.Tensor:
        """Targets w * q of samples by themselves."""
        assert self._softening is not None
        num_classes = len(self._source.classes)
        confidence = torch.from_numpy(softops.confidence(certainty, num_classes))
        return softops.weighted_targets(labels, confidence, num_classes, softening=self._softening)

    def _by_view(self, array: Any) -> Any:
        """(V * N, ...) as (V, N, ...) where there are several views."""
        views = self._recipe.views
        return array if views == 1 else array.reshape(views, len(array) // views, *array.shape[1:])

    def _overlaps(self, window: Window) -> np.ndarray:
        """IoU of each pair of views, float32 (V, V, N)."""
        by_view = [self._by_view(side) for side in window]
        first = Window(*(side[:, None] for side in by_view))
        second = Window(*(side[None] for side in by_view))
        return softops.intersection_over_union(first, second)
