"""torchvision's `DataLoader` with tensors: its own JPEG decoder and the v2 transforms on uint8 tensors.

Regime: as with Pillow, worker processes, one per core; images decoded whole by libjpeg-turbo into uint8 tensors, which
v2's documentation recommends to keep until after the resize, then made float and normalised.
"""

from __future__ import annotations

from typing import Any

import torch
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from .job import AREA, ASPECT, MEAN, STD, Epoch, Job
from .torchvision_pillow import of_dataset


def hard(job: Job) -> Epoch:
    """RandomResizedCrop."""
    transform: Any = v2.Compose(
        [
            v2.RandomResizedCrop(job.image_size, scale=AREA, ratio=ASPECT, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return of_dataset(ImageFolder(str(job.folder), transform, loader=_decoded), job)


def _decoded(path: str) -> torch.Tensor:
    return decode_image(path, ImageReadMode.RGB)
