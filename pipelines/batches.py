"""From the graph's output and a plan to the batch that a user gets."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import torch

from .. import softops
from ..softops import Window
from .mollify import Mollifier
from .output import Output
from .plan import Plan
from .recipe import Recipe
from .sources import Source


def finished_by_graph(recipe: Recipe) -> bool:
    """Whether nothing touches a recipe's images after the graph."""
    return recipe.noise is None and recipe.mollify is None


class BatchBuilder:
    """Finishes batches: the steps that come after the graph, labels, confidence, and what was asked for beside them.

    Args:
        source: The data set.
        recipe: What is done to each image.
        size: Side of the images in pixels.
        device: Where batches lie.
        output: Type and layout of the images.
        soft: Whether labels and confidence become soft targets.
        index: Whether batches tell the samples' positions in the data set.
        details: Whether batches tell what was drawn.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        size: int,
        device: torch.device,
        output: Output,
        *,
        soft: bool,
        index: bool,
        details: bool,
    ) -> None:
        self._source, self._recipe, self._device, self._soft = source, recipe, device, soft
        self._output = output
        self._mollifier = None if finished_by_graph(recipe) else Mollifier(size, device)
        extra = {"iou": recipe.views > 1, "index": index, "details": details}
        self._extra = [name for name, wanted in extra.items() if wanted]
        names = ["images", *(["targets"] if soft else ["labels", "confidence"]), *self._extra]
        self._type = namedtuple("Batch", names)

    def build(self, images: torch.Tensor, plan: Plan, index: np.ndarray) -> Any:
        """Finish a batch.

        Args:
            images: Output of the graph, (V * N, 3, S, S), or (V * N, S, S, 3) with channels last; changed in place.
            plan: Its numbers.
            index: The samples, int64 (N,).
        """
        images = self._output.channels_second(images)
        self._degrade(images, plan)
        images = images.to(self._output.dtype)  # keeps the layout; no copy where the graph has written that type
        num_classes = len(self._source.classes)
        labels = torch.from_numpy(self._source.labels[index])
        confidence = self._by_view(torch.from_numpy(softops.confidence(plan.certainty, num_classes)))
        if self._soft:
            labels = labels.expand(confidence.shape)
            fields = [softops.weighted_targets(labels, confidence, num_classes)]
        else:
            fields = [labels, confidence]
        if "iou" in self._extra:
            fields.append(torch.from_numpy(self._overlaps(plan.window)))
        if "index" in self._extra:
            fields.append(torch.from_numpy(index))
        fields = [self._by_view(images), *(field.to(self._device, non_blocking=True) for field in fields)]
        if "details" in self._extra:
            fields.append({name: self._by_view(array) for name, array in plan.details().items()})
        return self._type(*fields)

    def _degrade(self, images: torch.Tensor, plan: Plan) -> None:
        if self._mollifier is None:
            return
        if self._recipe.noise is not None and plan.noise is not None:
            amplitude, seeds = plan.noise
            self._mollifier.add_noise(images, amplitude * np.float32(self._recipe.noise.pixel_sigma), seeds)
        if plan.mollification is not None:
            self._mollifier.mollify(images, plan.mollification)

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
