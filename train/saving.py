"""When a run is saved: after every epoch, now and then within one, and when it is asked to end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import checkpoint
from .distributed import any_rank
from .engine import Trainer
from .progress import Curves, epoch_line

# Ranks agree by a message on what only one of them knows, the time or a signal; not at every step.
_AGREE_STEPS = 10

# torchrun sends a signal that the terminal has sent to all processes once more; that is no second request.
_REPEAT_S = 1.0


class Stopped(KeyboardInterrupt):
    """The run was asked to end, and is saved; the message says how to go on."""


class Saver:
    """Saves a run to its folder; every rank has one, and rank 0 writes.

    Args:
        trainer: what to save.
        output: folder of the run, made when there is something to save.
        settings: what a resumed run must share.
        classes: names of the classes.
        every_steps: also save after every so many steps of an epoch; None for no such rule.
        every_minutes: also save when the last time is so long ago; 0 for no such rule.

    Raises:
        ValueError: if a rule is out of range.
    """

    def __init__(
        self,
        trainer: Trainer,
        output: Path,
        settings: dict[str, Any],
        classes: tuple[str, ...],
        *,
        every_steps: int | None = None,
        every_minutes: float = 0.0,
    ) -> None:
        check_rules(every_steps=every_steps, every_minutes=every_minutes)
        self._trainer, self._output, self._settings, self._classes = trainer, output, settings, classes
        self._every_steps, self._every_s = every_steps, every_minutes * 60
        self._saved_at, self._saved_step = time.monotonic(), -1
        self._asked_at: float | None = None
        self._curves: Curves | None = None

    def after_epoch(self, row: dict[str, float]) -> None:
        """Save an epoch that is over: checkpoints first, then curves and a line."""
        trainer = self._trainer
        self._saved_at, self._saved_step = time.monotonic(), -1
        best = "top1" in row and row["top1"] >= max(past["top1"] for past in trainer.history)
        self._write(*([checkpoint.BEST] if best else []), checkpoint.LAST)
        if trainer.process.is_main:
            if self._curves is None:  # only now, so that a run that never got here leaves no event file
                self._curves = Curves(self._output, first_epoch=int(row["epoch"]))
            self._curves.add(row)
            print(epoch_line(row, epochs=trainer.plan.epochs), flush=True)
        if any_rank([self._asked_at is not None], trainer.process)[0] and trainer.epoch < trainer.plan.epochs:
            raise self._stopped()

    def between(self) -> None:
        """Save within an epoch if it is time to, on all ranks together.

        Raises:
            Stopped: once it is saved, if a signal asked one of the ranks to end.
        """
        running, process = self._trainer.running, self._trainer.process
        assert running is not None
        by_count = self._every_steps is not None and running.step % self._every_steps == 0
        overdue, asked = False, False
        if process.world_size == 1 or running.step % _AGREE_STEPS == 0:
            late = 0 < self._every_s <= time.monotonic() - self._saved_at
            overdue, asked = any_rank([late, self._asked_at is not None], process)
        if (by_count or overdue or asked) and running.step != self._saved_step:
            self._write(checkpoint.LAST)
            self._saved_at, self._saved_step = time.monotonic(), running.step
        if asked:
            raise self._stopped()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, a Ctrl-C or SIGTERM ends the run after its step, saved, and a second one ends it at once."""
        caught = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, self._ask) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._curves is not None:
                self._curves.close()

    def _ask(self, *_: object) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            if self._trainer.process.is_main:
                # not print, which fails where the signal came in the middle of another
                os.write(2, b"ending after this step; once more to end at once\n")
        elif now - self._asked_at > _REPEAT_S:
            raise KeyboardInterrupt

    def _write(self, *names: str) -> None:
        state = self._trainer.checkpoint(self._settings, self._classes)  # all ranks together
        if self._trainer.process.is_main:
            self._output.mkdir(parents=True, exist_ok=True)
            for name in names:
                checkpoint.save(self._output / name, state)

    def _stopped(self) -> Stopped:
        return Stopped(f"interrupted; the run is saved in {self._output}, go on with --resume")


def check_rules(*, every_steps: int | None, every_minutes: float) -> None:
    """Raise ValueError unless the rules for saving within an epoch are possible."""
    if every_steps is not None and every_steps < 1:
        raise ValueError(f"save-every-steps must be at least 1, got {every_steps}")
    if not every_minutes >= 0:
        raise ValueError(f"save-every-minutes must not be negative, got {every_minutes}")
