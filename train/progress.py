"""What a person sees of a run: a bar or plain lines, and TensorBoard's curves."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from .distributed import Process

_FIRST_LINE_S, _LOG_INTERVAL_S = 3.0, 30.0  # until and between lines where there is no terminal
_UNITS = {"images_per_s": "{:,.0f} images/s", "data_wait": "data wait {:.0%}", "lr": "lr {:.3g}"}
_SCORES = {"top1": "top-1 {:.1%}", "top5": "top-5 {:.1%}", "nll": "NLL {:.3f}", "ece": "ECE {:.3f}"}


def epoch_line(row: dict[str, float], *, epochs: int) -> str:
    """One epoch's numbers, as a line for people."""
    shown = {"train_loss": "loss {:.4f}", **_UNITS, **_SCORES}
    parts = [text.format(row[name]) for name, text in shown.items() if name in row]
    return f"epoch {int(row['epoch'])}/{epochs}  " + "  ".join(parts)


class Progress:
    """Shows the steps of one epoch on the main process: a bar on a terminal, else a line now and then.

    Args:
        total: steps of the epoch.
        label: what is running, such as "epoch 3/10".
        process: only the main one shows anything.
        stream: where to; standard error by default.
        done: steps that were done before.
        early: have a log begin with a line after seconds, not half a minute, to show that it goes on.
    """

    def __init__(
        self,
        *,
        total: int,
        label: str,
        process: Process,
        stream: TextIO | None = None,
        done: int = 0,
        early: bool = False,
    ) -> None:
        self._stream = stream or sys.stderr
        self._label = label
        self._total = total
        self._visible = process.is_main
        self._terminal = self._visible and self._stream.isatty()
        # Reading the loss waits for the GPU, so it happens once a second at most, and hardly ever for a log.
        self._interval_s = 1.0 if self._terminal else _FIRST_LINE_S if early else _LOG_INTERVAL_S
        self._shown_at = time.perf_counter()
        self._done = done
        bar = {"total": total, "desc": label, "file": self._stream, "initial": done}
        self._bar = tqdm(**bar, leave=False) if self._terminal else None

    def advance(self) -> bool:
        """Count one step; True when it is time to `show` numbers."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        return self._visible and time.perf_counter() - self._shown_at >= self._interval_s

    def show(self, *, loss: float, images_per_s: float, data_wait: float) -> None:
        """Show the numbers of the epoch so far: mean loss, images/s over all ranks, share of time in [0, 1]."""
        self._shown_at = time.perf_counter()
        if not self._terminal:
            self._interval_s = _LOG_INTERVAL_S
        numbers = f"loss {loss:.4f}, {images_per_s:,.0f} images/s, data wait {data_wait:.0%}"
        if self._bar is not None:
            self._bar.set_postfix_str(numbers)
        else:
            print(f"{self._label}  step {self._done}/{self._total}  {numbers}", file=self._stream, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


class Curves:
    """TensorBoard scalars, one point an epoch, in the folder of a run.

    Args:
        folder: where the event file goes.
        first_epoch: first epoch that will be added; later points of an interrupted run are hidden.
    """

    def __init__(self, folder: Path, *, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def add(self, row: dict[str, float]) -> None:
        """Add one epoch's row and put it on disk."""
        for name, value in row.items():
            if name != "epoch":
                group = "validation" if name in _SCORES else "train"
                self._writer.add_scalar(f"{group}/{name.removeprefix('train_')}", value, int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
