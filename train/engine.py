"""The training loop: SGD with Nesterov momentum on softly labelled batches, on one device or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .checkpoint import Checkpoint
from .distributed import Process, rank_errors, seed_step, share_buffers
from .losses import SoftLoss
from .metrics import Scores, ScoreSums
from .progress import Progress
from .running import RunningEpoch, require_finite
from .schedule import WarmupCosine, default_warmup_epochs
from .skipped import gathered


class Batches(Protocol):
    """What `fit` needs of a loader: `softfeed.pipelines.Loader`, or anything of the same shape.

    A batch begins with images float32 [N, 3, S, S], then labels int64 [N] and confidence float32 [N], or, for training,
    soft targets float32 [N, C] in their place; every rank's loader must give the same number of them when training.
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


@runtime_checkable
class StatefulBatches(Batches, Protocol):
    """Batches that can be gone on with in the middle of an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch that was handed over, the same on every rank."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to that place."""
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
        num_classes: classes that validation scores; None for all logits, see `evaluate`.
    """

    def __init__(
        self, model: nn.Module, plan: TrainingPlan, process: Process | None = None, *, num_classes: int | None = None
    ) -> None:
        self.plan, self.num_classes = plan, num_classes
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
        self.running: RunningEpoch | None = None
        self._batches: Batches | None = None
        self._saved: dict[str, Any] | None = None  # of the epoch to go on with

    def checkpoint(self, settings: dict[str, Any], classes: tuple[str, ...]) -> Checkpoint:
        """The state as it is; its tensors are the live ones, so save it before training on.

        All ranks must call it together.

        Raises:
            TypeError: within an epoch, if its batches are no `StatefulBatches`.
        """
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        running = self._saved  # restored, and not gone on with yet
        if isinstance(self._batches, StatefulBatches):
            batches = self._batches.state_dict()
            if "errors" in batches:
                batches["errors"] = gathered(batches["errors"], self.process)
            if self.running is not None:
                running = {**self.running.state(), "batches": batches}
            elif batches.get("errors"):
                running = {**RunningEpoch(self.process, self.epoch, 0).state(), "batches": batches}
        elif self.running is not None:  # without its place, the epoch would be trained again from half-trained weights
            raise TypeError(
                "batches must have state_dict and load_state_dict to be saved within an epoch, got "
                f"{type(self._batches).__name__}; save after epochs only"
            )
        return Checkpoint(settings, classes, self.epoch, model, optimizer, self.history, running)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same model and plan; every rank must restore the same one."""
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.epoch = checkpoint.epoch
        self.history = list(checkpoint.history)
        self._saved = checkpoint.running

    @property
    def steps_to_skip(self) -> int:
        """Steps of the next epoch that were done before the checkpoint that was restored."""
        return 0 if self._saved is None else int(self._saved["step"])

    def fit(
        self,
        batches: Batches,
        validation: Batches | None = None,
        *,
        after_epoch: Callable[[dict[str, float]], None] | None = None,
        between: Callable[[], None] | None = None,
    ) -> list[dict[str, float]]:
        """Train from where this stands to the end of the plan.

        Args:
            batches: training batches; to save or go on within an epoch they must be `StatefulBatches`.
            validation: batches to score after every epoch, each sample once over all ranks; always its epoch 0, so
                that scores can be compared even where it draws something.
            after_epoch: gets each epoch's row, on every rank, once `self.epoch` and `self.history` hold it.
            between: called on every rank after every training step, and by a process that is alone before every
                batch of a validation: it may save a checkpoint, and end the run by an exception.

        Returns:
            The history: for each epoch `epoch` (from 1), `train_loss`, `lr`, `images_per_s` (all ranks),
            `data_wait` (share of the time) and the validation's `top1`, `top5`, `nll`, `ece`.

        Raises:
            FloatingPointError: if the loss is no longer finite.
            RankError: for another error in one of several ranks.
        """
        self._batches, self._first = batches, self.epoch
        between = between or (lambda: None)
        while self.epoch < self.plan.epochs:
            batches.set_epoch(self.epoch)
            with rank_errors(self.process):
                row = {"epoch": float(self.epoch + 1), **self._train_epoch(batches, between)}
            require_finite(row["train_loss"], epoch=self.epoch + 1)
            if validation is not None:
                validation.set_epoch(0)
                with rank_errors(self.process):
                    share_buffers(self.model, self.process)
                    alone = self.process.world_size == 1
                    scored = _interrupted_by(between, validation) if alone else validation
                    options = {"num_classes": self.num_classes, "process": self.process}
                    row |= evaluate(self.model, scored, **options).summary()
            self.running = None
            self.epoch += 1
            self.history.append(row)
            if after_epoch is not None:
                with rank_errors(self.process):
                    after_epoch(row)
        return self.history

    def _train_epoch(self, batches: Batches, between: Callable[[], None]) -> dict[str, float]:
        plan, process, steps = self.plan, self.process, len(batches)
        schedule, lr = plan.schedule(max(1, steps)), self.optimizer.param_groups[0]["lr"]
        saved, self._saved = self._saved, None
        if saved is not None:
            cast(StatefulBatches, batches).load_state_dict(saved["batches"])
        self.running = running = RunningEpoch(process, self.epoch, steps, saved)
        self.model.train()
        shown: dict[str, Any] = {"label": f"epoch {self.epoch + 1}/{plan.epochs}", "total": steps, "done": running.step}
        with Progress(**shown, process=process, early=self.epoch == self._first) as progress:
            # an epoch that was stopped in its validation has no batches left, and `batches` is at the next one
            for images, *labelled in () if running.done else running.clock.fetch(batches):
                step = self.epoch * steps + running.step
                seed_step(seed=plan.seed, epoch=self.epoch, step=running.step, rank=process.rank)
                lr = self._set_lr(schedule(step))
                logits = _logits(self._forward, images.to(process.device, non_blocking=True))
                wanted = labelled[: 1 if labelled[0].is_floating_point() else 2]  # targets, or labels and confidence
                loss = plan.loss(logits.float(), *(field.to(process.device) for field in wanted))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                running.add(loss, len(images))
                if progress.advance():
                    progress.show(**running.shown())
                between()
        return {"lr": lr, **running.numbers()}

    def _set_lr(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr


def _interrupted_by(between: Callable[[], None], batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, with a call before each."""
    for batch in batches:
        between()
        yield batch


def _logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits [N, K]: bfloat16 on a GPU, float32 on a CPU; with the channels last, which is faster on both."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
        return model(images.contiguous(memory_format=torch.channels_last))


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable,
    *,
    num_classes: int | None = None,
    num_bins: int = 10,
    process: Process | None = None,
) -> Scores:
    """Score a model; over several ranks the sums are added up once, at the end.

    Args:
        model: network from images [N, 3, S, S] to logits [N, K], on the device of `process`; left in the mode it
            came in. Not wrapped in DDP, whose ranks would wait for each other batch by batch.
        batches: batches that begin with images and labels, each sample once over all ranks. Where confidences follow,
            a sample without any does not count.
        num_classes: logits to score, from the first on; None for all. An extra class of mollification is left out so.
        num_bins: confidence bins of the calibration error (SA Eq. 8: 10).
        process: this process; by default the current one, on the model's device.

    Raises:
        ValueError: if there are no samples.
    """
    process = process or Process.current(next(model.parameters()).device)
    sums = ScoreSums(num_bins=num_bins, device=process.device)
    training = model.training
    model.eval()
    for images, labels, *others in batches:
        logits = _logits(model, images.to(process.device, non_blocking=True))
        confidence = others[0].to(process.device) if others and others[0].is_floating_point() else None
        counts = None if confidence is None else confidence > 0  # a stand-in has none
        sums.update(logits[:, :num_classes], labels.to(process.device), counts)
    model.train(training)
    return sums.scores(process)
