"""Whether the loader keeps up with a training step: the step alone on synthetic data, the loader alone, and both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ..pipelines import Loader
from ..pipelines.preparing import Prepared
from ..train import models
from ..train.timing import LoopClock
from .measurement import Contender, Here
from .steps import Played, of_loader

ALONE, LOADER, TOGETHER = "step alone", "loader alone", "loader and step"


class TrainingStep:
    """Forward, backward and SGD update of a model on batches of one shape.

    Args:
        name: One of `train.models.names()`.
        num_classes: K.
        image_size: Side of the images in pixels.
        device: "cpu" or "cuda".
        half: Whether to compute in bfloat16 and channels-last, as is usual on a GPU.
    """

    def __init__(self, name: str, num_classes: int, image_size: int, device: torch.device, *, half: bool) -> None:
        self._half, self._device = half, device
        layout: Any = {"memory_format": torch.channels_last} if half else {}
        self._model = models.build(name, num_classes, image_size=image_size).to(device, **layout)
        self._layout = layout
        self._loss = nn.CrossEntropyLoss()
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-6, momentum=0.9)

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """One step; targets are labels (N,) or probabilities (N, K)."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            # a model in float32 without autocast takes no other type
            images = images.to(**self._layout) if self._half else images.float()
            loss = self._loss(self._model(images), targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()


class SyntheticBatches:
    """The same batch again and again, on the device: what a loader without any cost would be."""

    def __init__(self, loader: Loader, dtype: torch.dtype) -> None:
        shape = (loader.batch_size, 3, loader.image_size, loader.image_size)
        self._images = torch.randn(shape, device=loader.device).to(dtype)
        self._labels = torch.randint(loader.num_classes, (loader.batch_size,), device=loader.device)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield self._images, self._labels


class _Announcing(Loader):
    """Tells a clock when the graph's images are there; finishing them is work for the GPU, and no wait for data."""

    clock: LoopClock

    def _finish(self, prepared: Prepared, images: torch.Tensor) -> Any:
        self.clock.data_is_there()
        return super()._finish(prepared, images)


def contenders(played: Played, model: str) -> dict[str, Contender]:
    """The step alone, the loader alone, and both together.

    Raises:
        ValueError: if the model is unknown or does not take images of this size.
    """
    loader = played.loader(kind=_Announcing)
    loader.clock = clock = LoopClock(loader.device)
    step = TrainingStep(model, loader.num_classes, loader.image_size, loader.device, half=loader.device.type == "cuda")
    return {
        ALONE: _training(step, SyntheticBatches(loader, getattr(torch, played.dtype)), LoopClock(loader.device)),
        LOADER: Here(of_loader(played.loader())),
        TOGETHER: _training(step, loader, clock),
    }


def _training(step: TrainingStep, batches: Iterable[Any], clock: LoopClock) -> Here:
    def epoch() -> Iterator[int]:
        for images, targets, *_ in clock.fetch(batches):
            images = images.flatten(0, -4)  # several views are so many more images
            soft = targets.is_floating_point()
            step(images, targets.flatten(0, -2) if soft else targets.repeat(len(images) // len(targets)))
            yield len(images)

    return Here(epoch, lambda: clock.read()[1])
