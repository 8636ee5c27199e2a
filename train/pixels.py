"""Normalised batches back as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from ..pipelines import Normalize


def levels(images: torch.Tensor, normalize: Normalize) -> np.ndarray:
    """Pixel values of normalised images, clipped to what a screen shows.

    Args:
        images: float32 (..., 3, S, S), normalised with `normalize`.
        normalize: The recipe's mean and standard deviation.

    Returns:
        uint8 (..., S, S, 3).
    """
    mean, std = (np.array(values, np.float32) for values in (normalize.mean, normalize.std))
    scaled = np.moveaxis(images.cpu().numpy(), -3, -1) * std + mean
    return np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)
