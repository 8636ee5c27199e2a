"""The training loop: SGD with Nesterov momentum on softly labelled batches, on one device or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .checkpoint import Checkpoint
from .distributed import Process, rank_errors, seed_epoch, share_buffers, sum_over_ranks
from .losses import SoftLoss
from .metrics import Scores, ScoreSums
from .progress import Progress
from .schedule import WarmupCosine, default_warmup_epochs
from .timing import LoopClock


class Batches(Protocol):
    """What `fit` needs of a loader: `softfeed.pipelines.Loader`, or anything of the same shape.

    A batch begins with images float32 [N, 3, S, S], labels int64 [N] and confidence float32 [N]; every rank's loader
    must give the same number of them when training.
    """

    def __len__(self) -> int:
        """Steps of an epoch on this rank."""
        ...

    def __iter__(self) -> Any:
        """One epoch."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and draws of the next pass."""
        ...


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    Attributes:
        epochs: passes over the data, at least 1.
        lr: peak learning rate, positive.
        weight_decay: of all parameters, not negative.
        loss: SA Eq. 6 by default.
        momentum: Nesterov's, in (0, 1).
        warmup_epochs: in [0, epochs]; None for `default_warmup_epochs`.
        seed: of dropout and the like; the model and the loader have theirs.
    """

    epochs: int
    lr: float
    weight_decay: float = 5e-4
    loss: SoftLoss = field(default_factory=SoftLoss)
    momentum: float = 0.9
    warmup_epochs: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be finite and not negative, got {self.weight_decay}")
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum must be in (0, 1), got {self.momentum}")
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(f"warmup_epochs must be in [0, {self.epochs}], got {self.warmup_epochs}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        self.schedule(1)

    def schedule(self, steps_per_epoch: int) -> WarmupCosine:
        """The learning rate by step, for so many steps an epoch."""
        warmup = self.warmup_epochs
        if warmup is None:
            warmup = default_warmup_epochs(epochs=self.epochs)
        return WarmupCosine(self.lr, self.epochs * steps_per_epoch, round(warmup * steps_per_epoch))


class Trainer:
    """A model with its optimiser, in its place in the run.

    Args:
        model: any network from images [N, 3, S, S] to logits [N, K]; moved to the device of `process`.
        plan: how to train it.
        process: this process; alone on the CPU by default. With several, all ranks start from rank 0's weights.
    """

    def __init__(self, model: nn.Module, plan: TrainingPlan, process: Process | None = None) -> None:
        self.plan = plan
        self.process = process or Process.current()
        device = self.process.device
        self.model = model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # every step has the same shapes
        self._forward: nn.Module = self.model
        if self.process.world_size > 1:
            self._forward = DistributedDataParallel(
                self.model, device_ids=[device.index] if device.type == "cuda" else None
            )
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), plan.lr, plan.momentum, weight_decay=plan.weight_decay, nesterov=True
        )
        self.epoch = 0
        self.history: list[dict[str, float]] = []

    def checkpoint(self, settings: dict[str, Any], classes: tuple[str, ...]) -> Checkpoint:
        """The state after the last finished epoch; its tensors are the live ones, so save it before training on."""
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return Checkpoint(settings, classes, self.epoch, model, optimizer, self.history)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same model and plan; every rank must restore the same one."""
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.epoch = checkpoint.epoch
        self.history = list(checkpoint.history)

    def fit(
        self,
        batches: Batches,
        validation: Batches | None = None,
        *,
        after_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> list[dict[str, float]]:
        """Train from `self.epoch` to the end of the plan.

        Args:
            batches: training batches.
            validation: batches to score after every epoch, each sample once over all ranks; always its epoch 0, so
                that scores can be compared even where it draws something.
            after_epoch: gets each epoch's row, on every rank, once `self.epoch` and `self.history` hold it.

        Returns:
            The history: for each epoch `epoch` (from 1), `train_loss`, `lr`, `images_per_s` (all ranks),
            `data_wait` (share of the time) and the validation's `top1`, `top5`, `nll`, `ece`.

        Raises:
            FloatingPointError: if the loss is no longer finite.
            RankError: for another error in one of several ranks.
        """
        while self.epoch < self.plan.epochs:
            seed_epoch(seed=self.plan.seed, epoch=self.epoch, rank=self.process.rank)
            batches.set_epoch(self.epoch)
            with rank_errors(self.process):
                row = {"epoch": float(self.epoch + 1), **self._train_epoch(batches)}
            if not math.isfinite(row["train_loss"]):
                raise FloatingPointError(
                    f"loss must stay finite, got {row['train_loss']} in epoch {self.epoch + 1}; lower the lr"
                )
            if validation is not None:
                validation.set_epoch(0)
                with rank_errors(self.process):
                    share_buffers(self.model, self.process)
                    row |= evaluate(self.model, validation, process=self.process).summary()
            self.epoch += 1
            self.history.append(row)
            if after_epoch is not None:
                with rank_errors(self.process):
                    after_epoch(row)
        return self.history

    def _train_epoch(self, batches: Batches) -> dict[str, float]:
        plan, device, steps = self.plan, self.process.device, len(batches)
        schedule, lr = plan.schedule(max(1, steps)), math.nan
        self.model.train()
        loss_sum, images_seen = torch.zeros((), dtype=torch.float64, device=device), 0
        clock = LoopClock(device)
        with Progress(total=steps, label=f"epoch {self.epoch + 1}/{plan.epochs}", process=self.process) as progress:
            for step, (images, labels, confidence, *_) in enumerate(clock.fetch(batches), self.epoch * steps):
                lr = self._set_lr(schedule(step))
                logits = _logits(self._forward, images.to(device, non_blocking=True))
                loss = plan.loss(logits.float(), labels.to(device), confidence.to(device))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                loss_sum += loss.detach() * len(images)
                images_seen += len(images)
                if progress.advance():
                    elapsed_s, waited_s = clock.read()
                    rate = images_seen * self.process.world_size / elapsed_s
                    mean_loss = loss_sum.item() / images_seen
                    progress.show(loss=mean_loss, images_per_s=rate, data_wait=waited_s / elapsed_s)
        return {"lr": lr, **self._epoch_numbers(loss_sum, images_seen, clock)}

    def _set_lr(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _epoch_numbers(self, loss_sum: torch.Tensor, images: int, clock: LoopClock) -> dict[str, float]:
        elapsed_s, waited_s = clock.read()
        own = [loss_sum.item(), images, elapsed_s, waited_s]
        sums = torch.tensor(own, dtype=torch.float64, device=self.process.device)
        loss, images, elapsed_s, waited_s = sum_over_ranks(sums, self.process).tolist()
        if not images:
            raise ValueError("data must give at least one batch an epoch, got none; lower the batch size")
        mean_elapsed_s = elapsed_s / self.process.world_size
        return {
            "train_loss": loss / images,
            "images_per_s": images / mean_elapsed_s,
            "data_wait": waited_s / elapsed_s,
        }


def _logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits [N, K]: bfloat16 on a GPU, float32 on a CPU; with the channels last, which is faster on both."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
        return model(images.contiguous(memory_format=torch.channels_last))


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable, *, num_bins: int = 10, process: Process | None = None) -> Scores:
    """Score a model; over several ranks the sums are added up once, at the end.

    Args:
        model: network from images [N, 3, S, S] to logits [N, K], on the device of `process`; left in the mode it
            came in. Not wrapped in DDP, whose ranks would wait for each other batch by batch.
        batches: batches that begin with images and labels, each sample once over all ranks.
        num_bins: confidence bins of the calibration error (SA Eq. 8: 10).
        process: this process; by default the current one, on the model's device.

    Raises:
        ValueError: if there are no samples.
    """
    process = process or Process.current(next(model.parameters()).device)
    sums = ScoreSums(num_bins=num_bins, device=process.device)
    training = model.training
    model.eval()
    for images, labels, *_ in batches:
        logits = _logits(model, images.to(process.device, non_blocking=True))
        sums.update(logits, labels.to(process.device))
    model.train(training)
    return sums.scores(process)
