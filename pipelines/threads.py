"""A few threads that work on the rows of a batch.

numpy, scipy and single operations of torch let go of the interpreter's lock while they compute, so that rows are worked
on side by side.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread, local
from typing import Any, TypeVar

from .forks import new_lock

Result = TypeVar("Result")
Row = TypeVar("Row")


_this_thread = local()


def begin_own_thread() -> None:
    """Mark the current thread as one that works for a loader: the first thing that each of them does."""
    _this_thread.is_own = True


def in_own_thread() -> bool:
    """Whether the current thread works for a loader.

    The garbage collector runs in whichever thread makes an object, and closes there what nobody holds any more. What
    waits for a loader's threads must then not do so.
    """
    return getattr(_this_thread, "is_own", False)


class RowThreads:
    """Calls a function with each row of some columns. It starts its threads when they are needed.

    Args:
        count: Threads that work, that of the caller among them, >= 1.
    """

    def __init__(self, count: int) -> None:
        self._others = count - 1
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0  # that the pool is of
        self._starting = new_lock()  # several threads may be the first

    def each(self, work: Callable[..., Result], *columns: Iterable) -> list[Result]:
        """Call `work` with each row of some columns, in the threads; what it returned, in order.

        Raises:
            Exception: what one of the calls raised.
        """
        # Each thread takes the next row when it is done with one. A future per row, which `map` makes, is a dozen
        # objects with locks, and took as long as the smaller kinds of work.
        left = deque(enumerate(zip(*columns, strict=True)))
        results: list[Any] = [None] * len(left)

        def work_off() -> None:
            for row, arguments in taken(left):
                results[row] = work(*arguments)

        others: list[Future] = []
        try:
            try:
                others.extend(self._threads().submit(work_off) for _ in range(min(self._others, len(left) - 1)))
            except RuntimeError:
                # No thread can be started: there are too many, or the interpreter is about to exit and waits for the
                # thread of the caller. It then does what the others leave.
                pass
            work_off()
        finally:
            left.clear()
            for other in others:
                other.exception()  # waits: nothing may be at work on the rows when this returns
        for other in others:
            other.result()
        return results

    def close(self) -> None:
        """End the threads; the next call starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None and self._process == os.getpid():
            pool.shutdown()

    def _threads(self) -> ThreadPoolExecutor:
        with self._starting:
            if self._pool is None or self._process != os.getpid():  # in a fork there is the pool, but not its threads
                self._pool = ThreadPoolExecutor(self._others, "softfeed-rows", initializer=begin_own_thread)
                self._process = os.getpid()
            return self._pool


def at_once(work: Callable[..., None], rows: Iterable[tuple], count: int) -> None:
    """Call `work` with each of some rows, in new threads that nobody waits for when the interpreter exits.

    For what may hang; a call costs more than one of `RowThreads.each`, which keeps its threads.

    Args:
        work: Called with the columns of a row.
        rows: What to call it with.
        count: Threads that work, that of the caller among them, >= 1.

    Raises:
        BaseException: the first that one of the calls raised, when those under way are done; no others begin.
    """
    left, errors, others = deque(rows), [], []

    def work_off() -> None:
        for arguments in taken(left):
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the caller
                errors.append(error)
                left.clear()

    def in_new_thread() -> None:
        begin_own_thread()
        work_off()

    wanted = min(count, len(left)) - 1
    for _ in range(wanted):
        other = Thread(target=in_new_thread, name="softfeed-at-once", daemon=True)
        try:
            other.start()
        except RuntimeError:  # there are too many, or the interpreter is about to exit; the caller does what is left
            break
        others.append(other)
    work_off()
    for other in others:
        other.join()
    if errors:
        raise errors[0]


def taken(left: deque[Row]) -> Iterator[Row]:
    """Rows of a queue, one after the other, until there are none; other threads take some, too."""
    while left:
        try:
            yield left.popleft()
        except IndexError:  # another thread was quicker
            return
