"""Soft crops with Pillow, one image at a time: what somebody writes who adds them to torchvision's loader."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ...pipelines import Recipe, SoftCrop, SoftShift


def truncated_normal(sigma: float, limit: float) -> float:
    """N(0, sigma), redrawn until it lies within the limit."""
    while abs(value := random.gauss(0, sigma)) > limit:
        pass
    return value


class PillowSoftCrop:
    """`SoftCrop` for one Pillow image: a normalised float32 tensor (3, size, size) and its confidence."""

    def __init__(self, recipe: Recipe, size: int, num_classes: int) -> None:
        assert isinstance(recipe.crop, SoftCrop)
        self._crop, self._normalize, self._size = recipe.crop, recipe.normalize, size
        self._num_classes = num_classes
        self._flip: Any = transforms.RandomHorizontalFlip()
        self._to_tensor: Any = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(recipe.normalize.mean, recipe.normalize.std)]
        )

    def _axis(self, side: int) -> tuple[int, int]:
        sigma, least = float(self._crop.sigma), self._size / 2  # type: ignore[arg-type]
        free = max(side - least, 0)
        length = round(side - min(abs(random.gauss(0, sigma * free)), free))
        shift = truncated_normal(self._crop.spread * sigma * (side + length), (side + length) / 2)
        return round((side - length) / 2 + shift), length

    def __call__(self, image: Image.Image) -> tuple[torch.Tensor, float]:
        (left, width), (top, height) = self._axis(image.width), self._axis(image.height)
        box = (max(left, 0), max(top, 0), min(left + width, image.width), min(top + height, image.height))
        output = torch.zeros(3, self._size, self._size)
        scale_x, scale_y = self._size / width, self._size / height
        x0, x1 = round((box[0] - left) * scale_x), round((box[2] - left) * scale_x)
        y0, y1 = round((box[1] - top) * scale_y), round((box[3] - top) * scale_y)
        visibility = 0.0
        if x1 > x0 and y1 > y0:
            part = image.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box)
            output[:, y0:y1, x0:x1] = self._to_tensor(part)
            visibility = (x1 - x0) * (y1 - y0) / self._size**2 * width * height / (image.width * image.height)
        chance = 1 / self._num_classes
        certainty = 1 - (1 - visibility) ** self._crop.power
        return self._flip(output), chance + (1 - chance) * certainty


class SoftImageFolder(Dataset):
    """torchvision's `ImageFolder` with soft crops: (image, label, confidence)."""

    def __init__(self, folder: Path, recipe: Recipe, size: int) -> None:
        self._folder = ImageFolder(str(folder))
        self._crop = PillowSoftCrop(recipe, size, len(self._folder.classes))

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, float]:
        image, label = self._folder[index]
        tensor, confidence = self._crop(image)
        return tensor, label, confidence


class SoftArrayImages(Dataset):
    """Small images in memory, shifted softly by Pillow, as torchvision's own CIFAR data set holds them."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, recipe: Recipe, num_classes: int) -> None:
        assert isinstance(recipe.crop, SoftShift)
        self._images, self._labels, self._crop, self._num_classes = images, labels, recipe.crop, num_classes
        self._transform: Any = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(recipe.normalize.mean, recipe.normalize.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, float]:
        image = Image.fromarray(self._images[index])
        side = image.width
        x, y = (round(truncated_normal(float(self._crop.sigma) * side, side)) for _ in range(2))  # type: ignore[arg-type]
        image = image.crop((x, y, x + side, y + side))
        visibility = (side - abs(x)) * (side - abs(y)) / side**2
        chance = 1 / self._num_classes
        confidence = chance + (1 - chance) * (1 - math.pow(1 - visibility, self._crop.power))
        return self._transform(image), int(self._labels[index]), confidence
