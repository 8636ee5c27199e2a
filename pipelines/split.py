"""Two graphs on a CPU, with a resize by torch between them.

torch resizes uint8 images with channels last by vector instructions, with the same result as Pillow but for rounding,
in a fifth of the time of DALI's CPU operator (`python -m softfeed.benchmarks.alternatives`). So on a CPU one graph
decodes, a few threads resize each image while the next batch is decoded, and a second graph does the rest. On a GPU,
and where nothing is resized, one graph does it all.
"""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import torch

from .cropping import resized_on_cpu
from .graph import GraphOptions, build_graph
from .output import Output
from .recipe import Recipe
from .runner import GraphRunner, Runner
from .threads import RowThreads, begin_own_thread
from .views import split_numbers

_QUICK = ("AVX2", "AVX512")


class ImageRunner(GraphRunner):
    """Runs a graph on the CPU whose images are of several sizes."""

    def _handed_over(self, outputs: Any) -> list[np.ndarray]:
        """Images of a batch where DALI put them, several views behind each other; good until the next call."""
        return [np.asarray(image) for view in outputs for image in view]


class SplitRunner:
    """Does as a `GraphRunner` does, with two graphs on a CPU and a resize between them.

    While the consumer is busy with a batch, a thread resizes and finishes the next one.

    Args:
        decoding: Gives the visible parts of images.
        finishing: Does what comes after the resize, with the views of a batch behind each other; None to leave it out.
        threads: For the resize; None to leave it out, too.
        views: Of each sample.
    """

    def __init__(
        self, decoding: ImageRunner, finishing: GraphRunner | None, *, threads: RowThreads | None = None, views: int
    ) -> None:
        self._decoding, self._finishing, self._threads, self._views = decoding, finishing, threads, views
        self._numbers: deque[dict[str, np.ndarray]] = deque()  # of the batches that are not finished yet
        self._use_of_decoding = Lock()
        self._memory = np.empty(0, np.uint8)  # of the resized images
        self._ahead = ThreadPoolExecutor(1, "softfeed-ahead", initializer=begin_own_thread)
        self._next: Future | None = None  # the batch that the thread finishes

    def submit(self, images: list[np.ndarray] | np.ndarray, inputs: dict[str, np.ndarray]) -> None:
        """Start a batch; waits only for the decoding of one before. See `GraphRunner.submit`."""
        first, rest = split_numbers(inputs, self._views)
        with self._use_of_decoding:
            self._numbers.append(rest)
            self._decoding.submit(images, first)

    def collect(self) -> Any:
        """Images of the oldest batch in flight. See `GraphRunner.collect`."""
        future = self._waited_for()
        images = self._finished() if future is None else future.result()
        if self._numbers:
            # no thread can start when the interpreter is about to exit and waits for that of the caller
            with contextlib.suppress(RuntimeError):
                self._next = self._ahead.submit(self._finished)
        return images

    def drain(self) -> bool:
        """Wait for all batches in flight and drop them. See `GraphRunner.drain`."""
        future = self._waited_for()
        if future is not None and future.exception() is not None:
            return False
        self._numbers.clear()
        return self._decoding.drain() and (self._finishing is None or self._finishing.drain())

    def close(self) -> None:
        """End the graphs. See `GraphRunner.close`."""
        self._ahead.shutdown()
        self._decoding.close()
        if self._finishing is not None:
            self._finishing.close()

    def _waited_for(self) -> Future | None:
        """The batch that the thread was to finish, when it is done; an interruption leaves it to the next call."""
        if self._next is not None:
            wait([self._next])
        future, self._next = self._next, None
        return future

    def _finished(self) -> Any:
        """The oldest batch that is not finished yet, resized and finished."""
        with self._use_of_decoding:
            parts = self._decoding.collect()
            numbers = self._numbers.popleft()
        if self._threads is None:
            return parts
        images = self._resized(parts, numbers.pop("resized").astype(int), self._threads)
        if self._finishing is None:
            return images
        self._finishing.submit(images, numbers)
        return self._finishing.collect()

    def _resized(self, parts: list[np.ndarray], sides: np.ndarray, threads: RowThreads) -> list[np.ndarray]:
        """The images of a batch at other sizes, int (N, 2); good until the next call.

        They lie in memory that is used again, instead of pieces that one thread makes and another frees.
        """
        ends = np.cumsum(3 * sides.prod(axis=1))
        if ends[-1] > len(self._memory):
            self._memory = np.empty(ends[-1], np.uint8)
        memory = self._memory

        def one(part: np.ndarray, height: int, width: int, end: int) -> np.ndarray:
            image = memory[end - 3 * height * width : end].reshape(height, width, 3)
            image[...] = resized_on_cpu(part, height, width)
            return image

        return threads.each(one, parts, *sides.T.tolist(), ends.tolist())


def in_two_graphs(recipe: Recipe, device: torch.device) -> bool:
    """Whether a recipe's images are resized outside the graph: on a CPU for which torch has the quick way.

    Without it torch is slower, and starts threads of its own, which a forked child does not have.
    """
    return device.type == "cpu" and recipe.crop.resizes and torch.backends.cpu.get_cpu_capability() in _QUICK


def new_runner(  # noqa: PLR0913 - what a graph is built of, and what runs it
    recipe: Recipe,
    example: dict[str, np.ndarray],
    options: GraphOptions,
    threads: RowThreads,
    *,
    size: int,
    raw: bool,
    output: Output,
    until: str | None = None,
    kind: type[GraphRunner] = GraphRunner,
) -> Runner:
    """Build a recipe's graph or graphs, ready to run. See `build_graph`.

    Args:
        recipe: The steps.
        example: Inputs of one plan.
        options: Threads, device and the like.
        threads: For what is done on a CPU outside the graphs.
        size: Side of the square output in pixels.
        raw: Whether the images come as raw pixels.
        output: Type and layout of the finished images.
        until: The stage to end after, for measurements; None for all of them.
        kind: What runs the graph that finishes images.
    """
    device = torch.device("cpu") if options.device_id is None else torch.device("cuda", options.device_id)
    first_stage = "cut" if raw else "decode"
    if not options.two_graphs:
        graph = build_graph(recipe, example, options, size=size, raw=raw, output=output, until=until)
        return kind(graph, device, options.prefetch)
    first, rest = split_numbers(example, recipe.views)
    # Decoded images of a batch are read once and left, so they may lie where earlier ones did. As pieces of their own,
    # of tens of megabytes, they come and go in heaps of 64 MB, and what a process takes up wanders by a tenth.
    decoded = replace(options, reuses_memory=True)
    graph = build_graph(recipe, first, decoded, size=size, raw=raw, output=output, until=first_stage)
    decoding = ImageRunner(graph, device, options.prefetch)
    if until == first_stage:
        return SplitRunner(decoding, None, views=recipe.views)
    if until == "resize":
        return SplitRunner(decoding, None, threads=threads, views=recipe.views)
    # a depth of one, because every batch is waited for: the other graph and the threads are busy meanwhile
    after = replace(options, batch_size=recipe.views * options.batch_size, prefetch=1)
    graph = build_graph(
        replace(recipe, views=1), rest, after, size=size, raw=raw, output=output, until=until, begins_resized=True
    )
    return SplitRunner(decoding, kind(graph, device, 1), threads=threads, views=recipe.views)
