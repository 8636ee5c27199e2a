"""An epoch under way: what has been summed up so far, in a form that can be saved and gone on from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from .distributed import Process, sum_over_ranks
from .timing import LoopClock


class RunningEpoch:
    """Counts the steps of an epoch and sums up their losses and times.

    Args:
        process: this process.
        number: of the epoch, from 0.
        steps: of the epoch on every rank.
        saved: what `state` returned in the run to go on from; None for a new epoch.

    Attributes:
        step: steps done.
        clock: times the loop since it was begun or gone on with.
    """

    def __init__(self, process: Process, number: int, steps: int, saved: Mapping[str, Any] | None = None) -> None:
        self._process, self.number, self.steps = process, number, steps
        self.step = 0 if saved is None else int(saved["step"])
        # A saved sum is over all ranks, so that it counts on one of them alone.
        before = saved if process.is_main else None
        self._images = 0 if before is None else int(before["images"])
        self._loss = torch.zeros((), dtype=torch.float64, device=process.device)
        self._before_s = (0.0, 0.0)
        if before is not None:
            self._loss += float(before["loss_sum"])
            self._before_s = (before["elapsed_s"] * process.world_size, before["waited_s"] * process.world_size)
        self._images_at_start = self._images
        self.clock = LoopClock(process.device)

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def add(self, loss: torch.Tensor, images: int) -> None:
        """Count a step of so many images, with its mean loss."""
        self._loss += loss.detach() * images
        self._images += images
        self.step += 1

    def shown(self) -> dict[str, float]:
        """Numbers for people, of this rank since it began: mean loss, images/s over all ranks, share of waits."""
        elapsed_s, waited_s = self.clock.read()
        rate = (self._images - self._images_at_start) * self._process.world_size / elapsed_s
        return {"loss": self._loss.item() / self._images, "images_per_s": rate, "data_wait": waited_s / elapsed_s}

    def numbers(self) -> dict[str, float]:
        """Mean loss, images/s and share of waits over all ranks, which must call it together.

        Raises:
            ValueError: if there was no step.
        """
        loss, images, elapsed_s, waited_s = self._sums()
        if not images:
            raise ValueError("data must give at least one batch an epoch, got none; lower the batch size")
        mean_elapsed_s = elapsed_s / self._process.world_size
        return {
            "train_loss": loss / images,
            "images_per_s": images / mean_elapsed_s,
            "data_wait": waited_s / elapsed_s,
        }

    def state(self) -> dict[str, float]:
        """What a run that goes on here needs, as plain values; all ranks must call it together.

        Raises:
            FloatingPointError: if the loss is no longer finite.
        """
        loss, images, elapsed_s, waited_s = self._sums()
        require_finite(loss, epoch=self.number + 1)
        ranks = self._process.world_size
        return {
            "step": self.step,
            "loss_sum": loss,
            "images": images,
            "elapsed_s": elapsed_s / ranks,
            "waited_s": waited_s / ranks,
        }

    def _sums(self) -> list[float]:
        """Loss, images, seconds and seconds of waits, added up over all ranks."""
        elapsed_s, waited_s = (now + before for now, before in zip(self.clock.read(), self._before_s, strict=True))
        own = [self._loss.item(), self._images, elapsed_s, waited_s]
        sums = torch.tensor(own, dtype=torch.float64, device=self._process.device)
        return sum_over_ranks(sums, self._process).tolist()


def require_finite(loss: float, *, epoch: int) -> None:
    """Raise FloatingPointError unless the loss is finite; `epoch` counts from 1."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"loss must stay finite, got {loss} in epoch {epoch}; lower the lr")
