"""timm's loader, made by `create_loader` as its training script does it.

Regime: a `DataLoader` with worker processes, one per core, Pillow and timm's RandomResizedCropAndInterpolation; uint8
batches, made float and normalised as a batch by its prefetcher. Colour jitter and random erasing are off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from .job import AREA, ASPECT, MEAN, STD, Epoch, Job

PACKAGES = ("timm",)


def hard(job: Job) -> Epoch:
    """RandomResizedCrop."""
    from timm.data.dataset import ImageDataset
    from timm.data.loader import create_loader

    settings: dict[str, Any] = {"color_jitter": None, "interpolation": "bilinear", "scale": AREA, "ratio": ASPECT}
    loader: Any = create_loader(
        ImageDataset(str(job.folder)),
        (3, job.image_size, job.image_size),
        job.batch_size,
        is_training=True,
        mean=MEAN,
        std=STD,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
        pin_memory=job.device == "cuda",
        device=torch.device(job.device),
        **settings,
    )

    def epoch() -> Iterator[tuple[Any, Any]]:
        yield from loader

    return epoch
