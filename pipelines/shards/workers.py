"""Worker processes that do jobs in order and never outlive the conversion."""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event
from typing import TypeVar

_WORTH_A_START = 2500  # images that a core decodes while a new process imports DALI and torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_workers(images: int) -> int:
    """One process per core that this process may use, but no more than get a few thousand images each."""
    return min(len(os.sched_getaffinity(0)), math.ceil(images / _WORTH_A_START))


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor | None]:
    """A pool of `count` fresh processes, or None for one, whose work is then done right here.

    Raises:
        ChildProcessError: if a worker dies.
    """
    if count == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    executor = ProcessPoolExecutor(count, context, _start, (begun,))
    try:
        yield executor
    except BrokenProcessPool:
        # A fresh process imports the program's main module before anything else.
        if begun.is_set():
            reason, advice = "memory full?", f"try again with fewer than {count} workers"
        else:
            reason = "importing the program"
            advice = 'call convert below `if __name__ == "__main__":` in the program, or with workers=1'
        raise ChildProcessError(f"worker processes must survive, got one that died ({reason}); {advice}") from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def ordered_results(
    executor: ProcessPoolExecutor | None, function: Callable[[Job], Result], jobs: Iterable[Job], *, ahead: int
) -> Iterator[Result]:
    """Results in the order of the jobs; at most `ahead` jobs are handed out before their result is taken."""
    if executor is None:
        yield from map(function, jobs)
        return
    pending: deque[Future[Result]] = deque()
    for job in jobs:
        pending.append(executor.submit(function, job))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _start(begun: Event) -> None:
    """Prepare a worker process, and tell the parent that it got as far as this."""
    begun.set()
    # Ctrl-C reaches the whole process group; the parent alone reacts to it, by no longer handing out jobs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process when the parent is gone, or it would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
