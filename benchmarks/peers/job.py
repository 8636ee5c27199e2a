"""What every peer is given, so that all do the same work with the same cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipelines import presets

# RandomResizedCrop's usual window: share of the image's area, and width over height
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)

# ImageNet's, for pixel values in [0, 1]
MEAN, STD = presets.by_name("hard-imagenet").normalize.mean, presets.by_name("hard-imagenet").normalize.std


@dataclass(frozen=True)
class Job:
    """A peer's work.

    Attributes:
        folder: Image folder (`class/image.jpg`) of RGB JPEGs.
        shards: The same images as a WebDataset shard set written by `softfeed convert`.
        scratch: Folder for files of its own.
        batch_size: Images of a batch.
        image_size: Side S of the output in pixels.
        workers: Worker processes or threads: the number of cores to be used.
        device: "cpu" or "cuda", where batches are handed over.
    """

    folder: Path
    shards: Path
    scratch: Path
    batch_size: int
    image_size: int
    workers: int
    device: str


# One epoch of (images, labels): float32 (N, 3, S, S) and integers (N,), both torch tensors.
Epoch = Callable[[], Iterable[tuple[Any, Any]]]
