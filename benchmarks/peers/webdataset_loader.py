"""The webdataset package on the shard set, as its documentation's ImageNet example does it.

Regime: worker processes, one per core, each with shards of its own; a shuffle buffer of 1,000 samples; Pillow and
torchvision's transforms; batches made in the workers.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torchvision.transforms import v2

from .job import AREA, ASPECT, MEAN, STD, Epoch, Job

PACKAGES = ("webdataset",)


def hard(job: Job) -> Epoch:
    """RandomResizedCrop."""
    wds: Any = importlib.import_module("webdataset")  # whose names come and go by its own ways

    transform: Any = v2.Compose(
        [
            v2.RandomResizedCrop(job.image_size, scale=AREA, ratio=ASPECT, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    shards = sorted(str(path) for path in job.shards.glob("*.tar"))
    if len(shards) < job.workers:
        raise ValueError(f"workers must be at most the number of shards, {len(shards)}, got {job.workers}")
    dataset = (
        wds.WebDataset(shards, shardshuffle=100, empty_check=False)
        .shuffle(1000)
        .decode("pilrgb")
        .to_tuple("jpg;jpeg;png", "cls")
        .map_tuple(transform, _same)
        .batched(job.batch_size, partial=False)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=job.workers, persistent_workers=job.workers > 0)

    def epoch() -> Iterator[tuple[Any, Any]]:
        for images, labels in loader:
            yield images.to(job.device, non_blocking=True), torch.as_tensor(labels)

    return epoch


def _same(label: int) -> int:
    return label
