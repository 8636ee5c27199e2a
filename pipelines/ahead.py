"""Working ahead: a background thread that does the next items while the consumer is busy with others."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from .threads import begin_own_thread

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """Stands in the place of an item that failed, and ends the items."""

    error: BaseException


class WorkAhead(Generic[Item, Result]):
    """Runs `produce` over some items in a background thread, a few items ahead of the consumer.

    Iterate over it. An exception in the thread comes as a `Failure` at the place of the item that it belongs to, so
    that the consumer can finish the items before it. `close` stops the thread, also in the middle; the thread holds
    nothing but `produce` and `items`.

    Args:
        produce: Called in the thread with one item at a time, in order.
        items: What to call it with.
        depth: Results kept ahead, >= 1.
        timeout: Seconds that the thread may go without progress, > 0; None for any time.
        progress: Tells how far the thread is with a result: something else each time it gets on.
        doing: Tells what the thread is doing, in a few words, when it gets on with nothing.
    """

    def __init__(
        self,
        produce: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        depth: int,
        timeout: float | None = None,
        progress: Callable[[], object] = lambda: None,
        doing: Callable[[], str] = lambda: "at work",
    ) -> None:
        self._results: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._stopping = threading.Event()
        self._timeout, self._progress, self._doing = timeout, progress, doing
        arguments = (produce, items, self._results, self._stopping)
        self._thread = threading.Thread(target=_produce, args=arguments, name="softfeed-reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Result | Failure]:
        """Results in order.

        Raises:
            TimeoutError: if the thread gets on with nothing, saying where it is.
        """
        while (result := self._next()) is not _END:
            yield result
            if isinstance(result, Failure):
                return

    def _next(self) -> Any:
        reached = self._progress()
        while True:
            try:
                return self._results.get(timeout=self._timeout)
            except queue.Empty:
                before, reached = reached, self._progress()
                if before == reached:
                    raise self._hanging() from None

    def _hanging(self) -> TimeoutError:
        return TimeoutError(
            f"a batch must come within {self._timeout:g} s of the last sample that was read, got none while "
            f"{self._doing()} (in {_stack_of(self._thread)}); look after the storage, or set a longer timeout"
        )

    def stop(self) -> None:
        """Have the thread end when it is done with the item under way, without waiting for that."""
        self._stopping.set()

    def __del__(self) -> None:
        self.stop()  # where an interruption came before anybody could

    def close(self, *, patience: float | None = None) -> bool:
        """Stop the thread and wait for it, at most `patience` seconds; None for as long as it takes.

        Returns:
            Whether it has ended; if not, it hangs, and what it uses must be left to it.
        """
        self.stop()
        while not self._results.empty():  # room for the result under way, so that the thread need not wait for any
            self._results.get_nowait()
        self._thread.join(patience)
        return not self._thread.is_alive()


def _stack_of(thread: threading.Thread) -> str:
    """Where a thread is, innermost call first."""
    frame = sys._current_frames().get(thread.ident or 0)
    calls = reversed(traceback.extract_stack(frame)) if frame is not None else []
    return (
        " < ".join(f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in calls) or "a thread that ended"
    )


_END = object()


def _produce(
    produce: Callable[[Any], Any], items: Iterable[Any], results: queue.Queue[Any], stopping: threading.Event
) -> None:
    def put(result: object) -> None:
        while not stopping.is_set():
            try:
                return results.put(result, timeout=0.1)
            except queue.Full:
                continue

    begin_own_thread()
    try:
        for item in items:
            if stopping.is_set():
                return
            put(produce(item))
        put(_END)
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, whatever it is
        put(Failure(error))
