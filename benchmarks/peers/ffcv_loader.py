"""FFCV on a data set of its own, which it writes from the image folder.

Regime: images decoded and encoded once more as JPEGs of quality 90 (its documented setting for ImageNet, without its
raw pixels), with `--max-side` for the second time: its writer takes pixels and no files, so its bytes are near
everybody's but not the same; drawn in its fully random order, kept by the page cache; threads, one per core; its own
decoder, crop and flip, normalised as float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .job import AREA, ASPECT, MEAN, STD, Epoch, Job

PACKAGES = ("ffcv", "numba")


def hard(job: Job) -> Epoch:
    """RandomResizedCrop."""
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder  # pyright: ignore[reportMissingImports]
    from ffcv.loader import Loader, OrderOption  # pyright: ignore[reportMissingImports]
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage  # pyright: ignore[reportMissingImports]

    mean, std = (np.array(values) * 255 for values in (MEAN, STD))
    image = [
        RandomResizedCropRGBImageDecoder((job.image_size, job.image_size), scale=AREA, ratio=ASPECT),
        RandomHorizontalFlip(),
        NormalizeImage(mean, std, np.float32),
        ToTensor(),
        ToTorchImage(channels_last=False),
    ]
    loader = Loader(
        str(_written(job)),
        batch_size=job.batch_size,
        num_workers=job.workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )

    def epoch() -> Iterator[tuple[Any, Any]]:
        for images, labels in loader:
            yield images.to(job.device, non_blocking=True), labels

    return epoch


def _written(job: Job) -> Any:
    from ffcv.fields import IntField, RGBImageField  # pyright: ignore[reportMissingImports]
    from ffcv.writer import DatasetWriter  # pyright: ignore[reportMissingImports]
    from torchvision.datasets import ImageFolder

    path = job.scratch / "images.beton"
    fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=90), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=job.workers).from_indexed_dataset(ImageFolder(str(job.folder)))
    return path
