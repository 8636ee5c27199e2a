"""Playing steps: reads ahead, keeps the graph supplied, and gives finished images in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from .ahead import Failure, WorkAhead
from .partition import Step
from .preparing import Prepared, Preparer
from .runner import Runner
from .threads import in_own_thread

Build = Callable[[dict[str, np.ndarray]], Runner]

_PATIENCE_S = 5.0  # that a read is given to end when its epoch is left


class Player:
    """Plays the steps of epochs through one graph, which it builds when it is needed.

    Args:
        preparer: Prepares batches.
        depth: Batches in flight.
        timeout: Seconds that may pass without a batch or a sample being read; None for any time.
    """

    def __init__(self, preparer: Preparer, depth: int, timeout: float | None) -> None:
        self._preparer, self._depth, self._timeout = preparer, depth, timeout
        self._runner: Runner | None = None
        self._in_use_by: object = None  # the pass whose batches may be in the graph; None if it is empty for sure
        self._process = os.getpid()

    def play(
        self, produce: Callable[[Step], Prepared], steps: Sequence[Step], build: Build
    ) -> Generator[tuple[Prepared, torch.Tensor], None, None]:
        """Play some steps, one pass at a time.

        Args:
            produce: What `preparer.of_epoch` returned.
            steps: The steps.
            build: Builds a graph for plans with inputs like these.

        Yields:
            Each batch with its images as the graph wrote them.
        """
        self._enter_process()
        process = os.getpid()
        if (
            self._in_use_by is not None
        ):  # the pass before was interrupted while it was left, and its thread may still read
            self._drop_graph()
            self._preparer.abandon()
        this = self._in_use_by = object()
        # The thread gets the preparer alone: a loader that is dropped in the middle of an epoch can then be collected,
        # which closes this generator, which ends the thread.
        preparer = self._preparer
        ahead = WorkAhead(
            produce, steps, depth=self._depth, timeout=self._timeout, progress=preparer.progress, doing=preparer.doing
        )
        in_flight: deque[Prepared] = deque()
        patience = _PATIENCE_S
        in_order = False  # images and numbers are fed one by one, and Ctrl-C can come in between
        try:
            for prepared in ahead:
                if isinstance(prepared, Failure):
                    while in_flight:  # the batches before the one that failed are good
                        yield self._collect(in_flight, build)
                        _check_process(process)
                    raise prepared.error
                in_flight.append(prepared)
                self._submit(prepared, build)
                if len(in_flight) >= self._depth:
                    yield self._collect(in_flight, build)
                    _check_process(process)
            while in_flight:
                yield self._collect(in_flight, build)
                _check_process(process)
            in_order = True
        except GeneratorExit:
            in_order = True
            raise
        except TimeoutError:
            patience = 0.0
            raise
        finally:
            if os.getpid() == process:  # else it goes on in the parent
                if in_own_thread():
                    # The garbage collector found this pass. The thread may be the one that is waited for below, and
                    # while it waits in the collector nothing is collected in the whole process.
                    ahead.stop()
                    self._leave_all_to_threads(this)
                else:
                    if not ahead.close(patience=patience):
                        self._preparer.abandon()
                    self._leave_graph(this, in_order=in_order)

    def _leave_graph(self, used_by: object, *, in_order: bool) -> None:
        """Empty the graph for the next pass; one that was left out of order would give it images of other samples."""
        if self._in_use_by is not used_by:
            return
        if self._runner is not None and not (in_order and self._runner.drain()):
            self._drop_graph()
        self._in_use_by = None  # only now: an interruption of what is above leaves the graph to be dropped

    def _leave_all_to_threads(self, used_by: object) -> None:
        """Let go of what threads are at work on; they free it when they are done."""
        if self._in_use_by is used_by:
            self._runner = self._in_use_by = None
            self._preparer.abandon()

    def close(self) -> None:
        """Free the graph and close the files."""
        self._enter_process()
        self._drop_graph()
        self._preparer.close()

    def _enter_process(self) -> None:
        """In a process forked from the one that played before, leave everything to the parent and begin anew."""
        if os.getpid() != self._process:
            self._process, self._runner = os.getpid(), None
            self._preparer.abandon()

    def _drop_graph(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _submit(self, prepared: Prepared, build: Build) -> None:
        if self._runner is None:
            self._runner = build(prepared.plan.inputs)
        self._runner.submit(prepared.images, prepared.plan.inputs)

    def _collect(self, in_flight: deque[Prepared], build: Build) -> tuple[Prepared, torch.Tensor]:
        """Wait for the oldest batch in flight; where it holds samples that do not decode, for it without them."""
        alone = False
        while True:
            assert self._runner is not None
            try:
                images = self._runner.collect()
            except RuntimeError as error:
                self._drop_graph()  # one that failed is of no further use
                if self._preparer.blame(in_flight[0], error):
                    in_flight[0] = self._preparer.again(in_flight[0])
                elif len(in_flight) == 1 or alone:
                    raise self._preparer.unexplained(in_flight[0], error) from error
                else:  # A graph that reuses memory gives nothing more once it failed on a batch behind this one.
                    alone = True
                for waiting in [in_flight[0]] if alone else in_flight:
                    self._submit(waiting, build)
            else:
                collected = in_flight.popleft()
                if alone:
                    for waiting in in_flight:
                        self._submit(waiting, build)
                return collected, images


class Pass(Iterator[Any]):
    """One pass over a loader, which the loader may end: what it has not given is then an error, not the epoch's end.

    Args:
        batches: What it gives.
    """

    def __init__(self, batches: Generator[Any, None, None]) -> None:
        self._batches = batches
        self._process = os.getpid()
        self._over = False
        self._ended_by = ""

    def __next__(self) -> Any:
        if self._ended_by and not self._over:
            raise RuntimeError(
                f"a pass over a loader must be the only one, but this one was ended by {self._ended_by}; "
                "make a loader for each pass that is to go on beside others"
            )
        try:
            return next(self._batches)
        except StopIteration:
            self._over = True
            raise

    def close(self) -> None:
        """Leave the rest, as one does with a generator."""
        self._over = True
        self._batches.close()

    def end(self, by: str) -> None:
        """Leave the rest, and raise a RuntimeError that tells by what it was ended if somebody asks for more."""
        if os.getpid() == self._process:  # else another thread of the parent may be in the middle of it, for ever here
            self._ended_by = by
            self._batches.close()


def _check_process(process: int) -> None:
    """Raise in a fork of the process that an iterator is of: neither the graph's threads nor the reader are there."""
    if os.getpid() != process:
        raise RuntimeError(
            f"an iterator must be used in the process that made it, {process}, got {os.getpid()}; "
            "iterate over the loader anew in a forked process"
        )
