"""Telling what is being measured."""

from __future__ import annotations

import sys
import time
from typing import Any

_LINE_EVERY_S = 5.0  # in a log, of what is being measured


class Progress:
    """Tells on a stream what is being measured: in place on a terminal, else a line per repeat and now and then."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream or sys.stderr
        self._line_at = time.perf_counter()

    def turn(self, text: str) -> None:
        """What is being measured right now; without a terminal only if nothing was said for a while."""
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{text}")
            self._stream.flush()
        elif time.perf_counter() - self._line_at >= _LINE_EVERY_S:
            self.line(text)

    def stage(self, text: str) -> None:
        """What is being done right now and takes a while."""
        (self.turn if self._stream.isatty() else self.line)(text)

    def line(self, text: str) -> None:
        """Something to keep."""
        clear = "\r\x1b[2K" if self._stream.isatty() else ""
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()
        self._line_at = time.perf_counter()
