"""Running a graph: feeds it a few batches ahead and hands its output to torch."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np
import torch
from nvidia.dali.pipeline import Pipeline

from .feeding import shared
from .forks import left_alone
from .graph import IMAGES


class Runner(Protocol):
    """Something that batches are submitted to, and their images collected from in the same order.

    See `GraphRunner` for what the methods do.
    """

    def submit(self, images: list[np.ndarray] | np.ndarray, inputs: dict[str, np.ndarray]) -> None: ...

    def collect(self) -> Any: ...

    def drain(self) -> bool: ...

    def close(self) -> None: ...


class GraphRunner:
    """Keeps a graph supplied. Submit batches, then collect their images in the same order.

    Args:
        graph: A graph built by `build_graph`.
        device: Where its output lies.
        depth: The graph's prefetch depth; at most as many batches are in flight.
    """

    def __init__(self, graph: Pipeline, device: torch.device, depth: int) -> None:
        self._graph, self._device, self._depth = left_alone(graph), device, depth
        # The graph reads images where they lie, so they are kept until it has run, and for as many batches again: on a
        # GPU it runs behind the host, and a decoder may hold on to the bytes of its last batch.
        self._kept: deque[object] = deque(maxlen=2 * depth + 1)
        self._fed = 0
        self._in_flight: deque[bool] = deque()  # of each batch, whether it is wanted, or just fills the graph up

    def submit(self, images: list[np.ndarray] | np.ndarray, inputs: dict[str, np.ndarray]) -> None:
        """Start a batch; returns at once.

        Args:
            images: Encoded bytes, uint8 (bytes,) each, or raw pixels, uint8 (N, height, width, 3).
            inputs: The numbers of its plan, one row per sample.
        """
        self._last = (images, inputs)
        fed = shared(images)
        self._kept.append(fed)
        self._graph.feed_input(IMAGES, fed)
        for name, array in inputs.items():
            self._graph.feed_input(name, array)
        self._in_flight.append(True)
        # A new graph starts its first `depth` batches together, at the first call, and needs them all by then.
        self._fed = min(self._fed + 1, self._depth)
        if self._fed == self._depth:
            self._graph.schedule_run()

    def collect(self) -> Any:
        """Images of the oldest batch in flight as the graph wrote them, on the device, without a copy.

        Several views are copied, one behind the other: (V * N, ...).

        Raises:
            RuntimeError: if the graph failed on the batch; it is of no use afterwards.
        """
        while self._fed < self._depth:  # an epoch shorter than the prefetch
            self.submit(*self._last)
            self._in_flight[-1] = False
        # Only now: what was collected last is good until here.
        while not self._in_flight[0]:
            self._next()
        return self._next()

    def drain(self) -> bool:
        """Wait for all batches in flight and drop them.

        Returns:
            Whether the graph is still of use; it is not if one of them failed.
        """
        try:
            if self._in_flight and self._fed < self._depth:
                self.collect()
            while self._in_flight:
                self._next()
        except (AttributeError, RuntimeError):
            # RuntimeError: a batch failed. AttributeError: this runs while the garbage collector takes a dropped
            # loader apart, and the graph went first.
            return False
        return True

    def close(self) -> None:
        """End the graph, and wait for what still runs in it: only then may the images that it reads be freed."""
        # what Pipeline does when it is collected, which may come after the images were
        self._graph._shutdown()
        self._kept.clear()

    def _next(self) -> Any:
        self._in_flight.popleft()
        if self._device.type == "cpu":
            return self._handed_over(self._graph.outputs())
        # The handle of torch's default stream is 0 for every GPU, and DALI takes it for that of the current one.
        with torch.cuda.device(self._device):
            return self._handed_over(self._graph.outputs(cuda_stream=torch.cuda.current_stream(self._device)))

    def _handed_over(self, outputs: Any) -> Any:
        """What becomes of a batch that the graph has run, one list of images for each view."""
        views = [torch.from_dlpack(output.as_tensor()) for output in outputs]
        if len(views) == 1:
            return views[0]
        if self._device.type == "cpu":  # torch would start threads, which get in the way of the graph's
            return torch.from_numpy(np.concatenate([view.numpy() for view in views]))
        return torch.cat(views)
