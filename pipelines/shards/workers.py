"""Worker processes that do jobs in order and never outlive the program."""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_one
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, TypeVar

from .. import cores

_WORTH_A_START = 2500  # images that a core decodes while a new process imports DALI and torch

Job = TypeVar("Job")
Result = TypeVar("Result")


class _Pool(ProcessPoolExecutor):
    """Fresh processes that Ctrl-C does not reach, not even while they import the program.

    Ctrl-C goes to the whole process group; the parent alone reacts to it, by no longer handing out jobs. A process
    inherits which signals are blocked, and handing out a job is what starts one.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`."""
        with _interruption_deferred():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                return super().submit(fn, *args, **kwargs)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interruption_deferred() -> Iterator[None]:
    """Handle a Ctrl-C that comes within at the end.

    Another thread of this process may take the signal that this one blocks, and the handler then runs here all the
    same. A process that was started, but not yet told what to import, would die of that with a traceback.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[-1])


def default_workers(images: int) -> int:
    """One process per core that this process may use, but no more than get a few thousand images each."""
    return min(cores.available(), math.ceil(images / _WORTH_A_START))


@contextmanager
def worker_processes(count: int) -> Iterator[Executor | None]:
    """A pool of `count` fresh processes, or None for one, whose work is then done right here.

    Raises:
        ChildProcessError: if a worker dies.
    """
    if count == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    executor = _Pool(count, context, _start, (begun,))
    try:
        yield executor
    except BrokenProcessPool:
        # A fresh process imports the program's main module before anything else.
        if begun.is_set():
            reason, advice = "memory full?", f"try again with fewer than {count} workers"
        else:
            reason = "importing the program"
            advice = 'call this below `if __name__ == "__main__":` in the program, or with workers=1'
        raise ChildProcessError(f"worker processes must survive, got one that died ({reason}); {advice}") from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def ordered_results(
    executor: Executor | None, function: Callable[[Job], Result], jobs: Iterable[Job], *, ahead: int
) -> Generator[Result, None, None]:
    """Results in the order of the jobs; at most `ahead` jobs are handed out before their result is taken.

    Close it (`contextlib.closing`) when an error ends the work early: jobs at work are then waited for, and no other
    is begun.
    """
    if executor is None:
        yield from map(function, jobs)
        return
    pending: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            pending.append(executor.submit(function, job))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        wait(pending)


def _start(begun: Event) -> None:
    """Prepare a worker process, and tell the parent that it got as far as this."""
    begun.set()
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process when the parent is gone, or it would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_one([parent.sentinel])
        os._exit(1)
