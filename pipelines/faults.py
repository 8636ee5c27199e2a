"""Samples that cannot be read or decoded: what is done about them, and the record of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .forks import new_lock
from .sources import Source

ON_ERROR = ("raise", "skip")
MAX_ERRORS = 0.01  # of the samples

_log = logging.getLogger("softfeed")


class SampleError(NamedTuple):
    """A sample that was skipped.

    Attributes:
        index: Its position in the data set.
        source: Where it lies: its file, or its shard, offset and original name.
        reason: What is wrong.
    """

    index: int
    source: str
    reason: str


class ErrorBudgetError(ValueError):
    """More samples failed than `max_errors` allows, or none is left; the message names the last one."""


class ErrorLog:
    """The samples that failed, on this rank. Several threads may use it.

    Args:
        source: The data set.
        on_error: "raise" raises the first error; "skip" records up to `max_errors` of them.
        max_errors: How many samples may fail: a whole number, or a share of the data set in (0, 1), rounded up.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, source: Source, on_error: str, max_errors: float) -> None:
        checks.choice("on_error", on_error, ON_ERROR)
        checks.number("max_errors", max_errors)
        if not (0 <= max_errors < 1 or (math.isfinite(max_errors) and max_errors == int(max_errors) >= 1)):
            raise ValueError(f"max_errors must be a whole number, or a share in (0, 1), got {max_errors}")
        self.skips = on_error == "skip"
        self._budget = int(max_errors) if max_errors >= 1 else math.ceil(max_errors * len(source))
        self._source = source
        self._errors: dict[int, SampleError] = {}
        self._found = 0  # by this rank, since its start or the state it went on from
        self._failed = np.zeros(len(source), bool)
        self._lock = new_lock()

    @property
    def errors(self) -> list[SampleError]:
        """The samples that failed, in the order in which that was found."""
        return list(self._errors.values())

    def known(self, indices: np.ndarray) -> np.ndarray:
        """Which of some samples are known to fail, bool (N,)."""
        return self._failed[indices]

    def add(self, index: int, reason: str, error: Exception) -> None:
        """Record that a sample failed.

        Raises:
            Exception: `error` itself, unless such samples are skipped.
            ErrorBudgetError: if more samples failed than may.
        """
        if not self.skips:
            raise error
        with self._lock:
            if index not in self._errors:
                self._errors[index] = SampleError(index, self._source.describe(index), reason)
                self._failed[index] = True
                self._found += 1
                _log.warning("softfeed skips a sample: %s", error)
        if self._found > self._budget:
            raise ErrorBudgetError(
                f"max_errors must be at least the number of samples that fail, got {self._budget} and "
                f"{self._found} failures; the last: {error}"
            ) from error

    def load(self, errors: Iterable[Any]) -> None:
        """Take over what a state recorded; samples that failed are not tried again.

        They may be of several ranks, each with a budget of its own, so they count against none.
        """
        if self.skips:
            with self._lock:
                self._errors = {int(index): SampleError(int(index), source, reason) for index, source, reason in errors}
                self._failed[:] = False
                self._failed[list(self._errors)] = True
                self._found = 0
