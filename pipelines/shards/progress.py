"""What a person sees of a running conversion or verification: a bar on a terminal, else a line now and then."""

import sys
import time
from typing import Protocol, TextIO

from tqdm import tqdm

_LINE_EVERY_S = 5.0  # in a log, where a bar would write a line per update
_UNITS: dict[str, str] = {
    "fetching": "files",
    "reading": "files",
    "copying": "files",
}  # what other stages count are images
# what is counted as trouble: one, and several
_TROUBLE = {stage: ("problem", "problems") for stage in ("verifying", "verifying again")} | {
    "converting": ("bad", "bad")
}


class Progress(Protocol):
    """Called now and then with what is being done, how much of it is done, and the bad images or problems so far."""

    def __call__(self, stage: str, done: int, total: int, bad: int, written: int) -> None:
        """Show it.

        Args:
            stage: "reading" (counts files that are made addressable first), "converting" or "verifying" (count images).
            done: of `total`, those that an earlier run had done included.
            total: files or images.
            bad: images left out, or problems found.
            written: bytes of shards that this run has written, or read to verify them.
        """
        ...


class ConversionProgress:
    """Shows the `progress` calls of `convert` and `verify` as a tqdm bar or as plain lines.

    Both tell images/s and MB/s of what this run does, the time left, and bad images or problems.

    Args:
        stream: where to; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: tqdm | None = None
        self._stage = ""
        self._line_at = self._begin = time.perf_counter()
        self._first = self._done = self._total = 0

    def __call__(self, stage: str, done: int, total: int, bad: int, written: int) -> None:
        """Show that `done` of `total` files or images are done, and how many are bad; see `Progress`."""
        now = time.perf_counter()
        if stage != self._stage or done < self._done:  # the second set of a split begins at 0 again
            self.close()
            self._begin = now if self._stage else self._begin
            self._stage, self._first = stage, 0
        self._done, self._total = done, total
        if stage == "converting" and not written:  # all of an earlier run, so it says nothing about the rate
            self._begin, self._first = now, done
        if self._stream.isatty():
            self._advance_bar(done, total, bad, written)
        elif done == total or now - self._line_at >= _LINE_EVERY_S:
            self._line_at = now
            unit = _UNITS.get(stage, "images")
            self._stream.write(f"{stage}: {done:,} of {total:,} {unit}{self._rates(done, total, bad, written)}\n")
            self._stream.flush()

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def interrupted(self) -> KeyboardInterrupt:
        """What to raise for a Ctrl-C in work that the same command goes on with: it says so, and how much is done."""
        if not self._stage:  # nothing has begun, so there is nothing to go on with
            return KeyboardInterrupt()
        # workers may have finished more that was not told yet
        done = f"at least {self._done:,} of {self._total:,} {_UNITS.get(self._stage, 'images')} done"
        return KeyboardInterrupt(f"interrupted while {self._stage}, {done}; the same command again goes on")

    def _trouble(self, bad: int) -> str:
        one, several = _TROUBLE[self._stage]
        return f"{bad} {one if bad == 1 else several}"

    def _rates(self, done: int, total: int, bad: int, written: int) -> str:
        elapsed = max(time.perf_counter() - self._begin, 1e-9)
        rate = (done - self._first) / elapsed
        if self._stage not in _TROUBLE or not rate:
            return ""
        left = f", {tqdm.format_interval((total - done) / rate)} left" if done < total else ""
        return f", {rate:,.0f} images/s, {written / elapsed / 1e6:,.1f} MB/s{left}, {self._trouble(bad)}"

    def _advance_bar(self, done: int, total: int, bad: int, written: int) -> None:
        if self._bar is None:
            unit = f" {_UNITS.get(self._stage, 'images')}"
            self._bar = tqdm(total=total, desc=self._stage, unit=unit, file=self._stream, dynamic_ncols=True)
        if self._stage in _TROUBLE:
            rate = written / max(time.perf_counter() - self._begin, 1e-9) / 1e6
            self._bar.set_postfix_str(f"{rate:,.1f} MB/s, {self._trouble(bad)}", refresh=False)
            self._bar.initial = self._first
        self._bar.update(done - self._bar.n)
