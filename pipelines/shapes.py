"""Heights and widths of images, which windows are drawn from before anything is decoded."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def

from .feeding import shared
from .forks import left_alone
from .shards.decoding import Decoder, Undecodable
from .sources import Source


class UnreadableImageError(ValueError):
    """Bytes that are no image, or cut short; the message names the sample and what to do.

    Attributes:
        reason: What is wrong, without the place.
    """

    def __init__(self, source: Source, index: int, reason: str) -> None:
        advice = "remove it, or run softfeed convert, which sets bad images aside"
        if source.shard_set is not None:  # bad ones were set aside, so the shard was changed since, or made unchecked
            advice = f"softfeed verify --decode {source.root} tells what is wrong with the set"
        super().__init__(f"cannot decode {source.describe(index)}: {reason}; {advice}")
        self.reason = reason


class GraphError(RuntimeError):
    """The graph failed for a reason that no single image explains."""


@pipeline_def
def _peek() -> Any:
    encoded = fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1, no_copy=True)
    return fn.peek_image_shape(encoded)


def _run(pipeline: Any, encoded: Any) -> Any:
    pipeline.feed_input("encoded", encoded)
    return pipeline.run()[0]


class ImageShapes:
    """Shapes of a data set's images: from its manifest, else from each image's header when it is first read.

    Args:
        source: The data set.
        batch_size: Largest number of images asked for at once.
        num_threads: CPU threads for reading headers.
    """

    def __init__(self, source: Source, batch_size: int, num_threads: int) -> None:
        self._source = source
        self._height, self._width = source.height.copy(), source.width.copy()
        self._batch_size, self._num_threads = batch_size, num_threads
        self._pipeline = None
        self._fed: Any = None  # kept until the next batch, when the graph is done with it for sure
        self._lock = threading.Lock()

    def of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights and widths in pixels, each int32 (N,), after EXIF rotation as the decoder applies it.

        They must be known, from the manifest or by `check`.
        """
        return self._height[indices], self._width[indices]

    def check(self, indices: np.ndarray, images: Sequence[np.ndarray]) -> dict[int, UnreadableImageError]:
        """Read the headers of some images, keep the shapes that were not known, and compare those that were.

        Not only for the shapes: DALI 2.4's CPU decoder may end the process with a segmentation fault when a batch holds
        an image whose header it cannot read, or which does not reach as far as the part to decode. A header takes
        about 10 microseconds.

        Args:
            indices: Samples, int64 (N,).
            images: Their bytes.

        Returns:
            For each row whose header cannot be read, or tells another shape, why.

        Raises:
            GraphError: if reading headers failed for another reason.
        """
        with self._lock:
            try:
                return self._compared(indices, images)
            except RuntimeError as error:
                failures = self.unreadable(indices, images)
                if not failures:
                    raise unexplained(self._source, indices.tolist(), error) from error
            good = [row for row in range(len(indices)) if row not in failures]
            try:
                found = self._compared(indices[good], [images[row] for row in good])
            except RuntimeError as error:
                raise unexplained(self._source, indices[good].tolist(), error) from error
            return failures | {good[row]: failure for row, failure in found.items()}

    def _compared(self, indices: np.ndarray, images: Sequence[np.ndarray]) -> dict[int, UnreadableImageError]:
        """Keep the shapes that were not known; for each row with another shape than is known, why.

        Raises:
            RuntimeError: if reading headers failed.
        """
        if not len(indices):
            return {}
        shapes = self._headers(images)[:, :2]
        new = self._height[indices] == 0
        self._height[indices[new]], self._width[indices[new]] = shapes[new].T
        rows = np.flatnonzero((shapes != np.stack(self.of(indices), axis=1)).any(axis=1)).tolist()
        found = self.unreadable(indices[rows], [images[row] for row in rows]) if rows else {}
        return {rows[row]: failure for row, failure in found.items()}

    def unreadable(self, indices: np.ndarray, images: Sequence[np.ndarray]) -> dict[int, UnreadableImageError]:
        """For each row whose image does not decode by itself on the CPU, or has another size than is known, why."""
        failures = {}
        for row, result in enumerate(Decoder().decode([image.tobytes() for image in images])):
            index = int(indices[row])
            known = int(self._height[index]), int(self._width[index])
            if isinstance(result, Undecodable):
                failures[row] = UnreadableImageError(self._source, index, result.reason)
            elif known not in ((0, 0), (result.height, result.width)):
                reason = f"it was replaced, has {result.height}x{result.width} pixels and had {known[0]}x{known[1]}"
                failures[row] = UnreadableImageError(self._source, index, reason)
        return failures

    def close(self) -> None:
        """End the graph that reads headers; what is known stays."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline._shutdown()
        self._fed = None

    def _headers(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Height, width and channels in each header, (N, 3)."""
        if self._pipeline is None:
            settings = {"batch_size": self._batch_size, "num_threads": self._num_threads, "device_id": None}
            self._pipeline = left_alone(_peek(**settings, prefetch_queue_depth=1, set_affinity=False))
        try:
            encoded = shared(images)
            shapes = _run(self._pipeline, encoded).as_array()
        except BaseException:
            self._pipeline = None  # one that failed is of no further use, nor one with a batch still in it
            raise
        self._fed = encoded
        return shapes


def unexplained(source: Source, indices: list[int], error: RuntimeError) -> GraphError:
    """The exception for a graph that failed though every image decodes by itself, on a GPU for instance."""
    names = ", ".join(source.describe(index) for index in indices[:3])
    return GraphError(
        f"the graph failed on a batch whose images decode on the CPU one by one ({names}, ...): {_last_line(error)}"
    )


def _last_line(error: RuntimeError) -> str:
    """What DALI says at the end of its report, before its remarks about the pipeline."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Current pipeline", "[frame", "C++ context"))]
    return told[-1] if told else "no reason given"
