"""torchvision's `DataLoader` with Pillow, as its training references set it up.

Regime: worker processes, one per core, that live on between epochs; images decoded whole by Pillow, cropped and resized
one by one as uint8, then made float tensors and normalised; memory pinned for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from ...pipelines import presets
from ...pipelines.reading import SampleReader
from ...pipelines.sources import open_source
from .job import AREA, ASPECT, MEAN, STD, Epoch, Job
from .pillow_soft import SoftArrayImages, SoftImageFolder


def hard(job: Job) -> Epoch:
    """RandomResizedCrop."""
    transform: Any = v2.Compose(
        [
            v2.RandomResizedCrop(job.image_size, scale=AREA, ratio=ASPECT, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return of_dataset(ImageFolder(str(job.folder), transform), job)


def soft(job: Job) -> Epoch:
    """The soft crop, with the confidence that belongs to it."""
    return of_dataset(SoftImageFolder(job.folder, presets.by_name("soft-imagenet"), job.image_size), job)


def soft_raw(job: Job) -> Epoch:
    """The soft shift of small raw images that lie in memory, as torchvision's CIFAR data set holds them."""
    source = open_source(job.shards)
    few = np.arange(min(len(source), 10_000))  # the rate does not depend on how many there are
    images = np.asarray(SampleReader(source).read(few)[0])
    recipe = presets.by_name("soft-cifar")
    return of_dataset(SoftArrayImages(images, source.labels[few], recipe, len(source.classes)), job)


def of_dataset(dataset: Dataset, job: Job) -> Epoch:
    """Epochs of a `DataLoader`, the first two fields of its samples."""
    loader = DataLoader(
        dataset,
        job.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
        pin_memory=job.device == "cuda",
    )

    def epoch() -> Iterator[tuple[Any, Any]]:
        for images, labels, *_ in loader:
            yield images.to(job.device, non_blocking=True), labels

    return epoch
