"""Learning rate by step, and the defaults that go with the papers' recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass

SMALL_IMAGE = 64  # up to this many pixels a side, CIFAR's habits apply; above, ImageNet's


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up to the peak, then half a cosine to zero (SGDR, arXiv 1608.03983, without restarts).

    A pure function of the step, so a resumed run needs no scheduler state.

    Attributes:
        peak: the highest rate, positive.
        total_steps: optimiser steps of the whole run, at least 1.
        warmup_steps: how many of them rise, in [0, total_steps]. Step 0 already moves: peak / warmup_steps.
    """

    peak: float
    total_steps: int
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not (self.peak > 0 and math.isfinite(self.peak)):
            raise ValueError(f"lr must be positive and finite, got {self.peak}")
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {self.total_steps}")
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ValueError(f"warmup_steps must be in [0, {self.total_steps}], got {self.warmup_steps}")

    def __call__(self, step: int) -> float:
        """The rate of one step, counted from 0 over the whole run."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def default_lr(*, batch_size: int, image_size: int) -> float:
    """SA's rates, scaled linearly with the batch over all ranks (arXiv 1706.02677).

    0.1 per 128 images for small images (SA App. B.1), 0.1 per 256 for others (SA App. B.3).

    Raises:
        ValueError: if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return 0.1 * batch_size / (128 if image_size <= SMALL_IMAGE else 256)


def default_weight_decay(*, image_size: int) -> float:
    """5e-4 for small images (arXiv 1605.07146), 1e-4 for others (arXiv 1512.03385)."""
    return 5e-4 if image_size <= SMALL_IMAGE else 1e-4


def default_warmup_epochs(*, epochs: int) -> float:
    """SA's 5 epochs (App. B.3), but never more than a tenth of the run, so that short runs also cool down."""
    return min(5.0, epochs / 10)
