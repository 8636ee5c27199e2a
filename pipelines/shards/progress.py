"""What a person sees of a running conversion: a bar on a terminal, else a line now and then."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

_LINE_EVERY_S = 10.0  # in a log, where a bar would write a line per update
_UNITS = {"reading": "files", "converting": "images"}


class ConversionProgress:
    """Shows the `progress` calls of `convert` as a tqdm bar with images/s and bad images, or as plain lines.

    Args:
        stream: where to; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: tqdm | None = None
        self._stage = ""
        self._line_at = self._begin = time.perf_counter()
        self._first = 0

    def __call__(self, stage: str, done: int, total: int, bad: int) -> None:
        """Show that `done` of `total` files or images are done, `bad` of them left out."""
        if stage != self._stage:
            self.close()
            self._stage = stage
            self._begin = time.perf_counter()
            self._first = done
        if self._stream.isatty():
            self._advance_bar(done, total, bad)
        elif done == total or time.perf_counter() - self._line_at >= _LINE_EVERY_S:
            self._line_at = time.perf_counter()
            rate = (done - self._first) / max(self._line_at - self._begin, 1e-9)
            self._stream.write(
                f"{stage}: {done:,} of {total:,} {_UNITS[stage]}"
                + (f", {rate:,.0f} images/s, {bad} bad\n" if stage == "converting" and rate else "\n")
            )
            self._stream.flush()

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _advance_bar(self, done: int, total: int, bad: int) -> None:
        if self._bar is None:
            unit = f" {_UNITS[self._stage]}"
            self._bar = tqdm(total=total, desc=self._stage, unit=unit, file=self._stream, dynamic_ncols=True)
        self._bar.set_postfix_str(f"{bad} bad" if self._stage == "converting" else "", refresh=False)
        self._bar.update(done - self._bar.n)
