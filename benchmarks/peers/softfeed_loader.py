"""softfeed's loader on the image folder itself and on its shard set, with the threads that it chooses itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...pipelines import Loader
from ..session import recipe_by_name
from .job import Epoch, Job


def soft(job: Job) -> Epoch:
    """The soft crop, on the image folder."""
    return _epochs(job, job.folder, "soft-imagenet")


def hard(job: Job) -> Epoch:
    """RandomResizedCrop, on the image folder."""
    return _epochs(job, job.folder, "hard-imagenet")


def soft_shards(job: Job) -> Epoch:
    """The soft crop, on the shard set."""
    return _epochs(job, job.shards, "soft-imagenet")


def full_shards(job: Job) -> Epoch:
    """The full recipe, on the shard set."""
    return _epochs(job, job.shards, "full")


def soft_raw(job: Job) -> Epoch:
    """The soft shift, on a raw shard set."""
    return _epochs(job, job.shards, "soft-cifar")


def hard_raw(job: Job) -> Epoch:
    """The padded crop, on a raw shard set."""
    return _epochs(job, job.shards, "hard-cifar")


def _epochs(job: Job, data: Path, recipe: str) -> Epoch:
    loader = Loader(
        data,
        recipe_by_name(recipe, raw=False),
        job.batch_size,
        job.image_size,
        device=job.device,
    )

    def epoch() -> Iterator[tuple[Any, Any]]:
        for images, labels, _ in loader:
            yield images, labels

    return epoch
