"""Heights and widths of images, which windows are drawn from before anything is decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def

from .shards.decoding import Decoder, Undecodable
from .sources import Source


class UnreadableImageError(ValueError):
    """Bytes that are no image, or cut short; the message names the sample and what to do."""


class GraphError(RuntimeError):
    """The graph failed for a reason that no single image explains."""


@pipeline_def
def _peek() -> Any:
    encoded = fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1, no_copy=True)
    return fn.peek_image_shape(encoded)


def _run(pipeline: Any, images: list[np.ndarray]) -> Any:
    pipeline.feed_input("encoded", images)
    return pipeline.run()[0]


class ImageShapes:
    """Shapes of a data set's images: from its manifest, else read once from each image's header and kept.

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

    def of(self, indices: np.ndarray, images: list[np.ndarray] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights and widths in pixels, each int32 (N,), after EXIF rotation as the decoder applies it.

        Args:
            indices: Samples, int64 (N,).
            images: Their bytes.

        Raises:
            UnreadableImageError: if the header of an image cannot be read.
        """
        unknown = np.flatnonzero(self._height[indices] == 0)
        if len(unknown):
            self._read([int(indices[row]) for row in unknown], [images[row] for row in unknown])
        return self._height[indices], self._width[indices]

    def _read(self, indices: list[int], images: list[np.ndarray]) -> None:
        if self._pipeline is None:
            self._pipeline = _peek(
                batch_size=self._batch_size,
                num_threads=self._num_threads,
                device_id=None,
                prefetch_queue_depth=1,
                set_affinity=False,
            )
        try:
            shapes = _run(self._pipeline, images).as_array()
        except RuntimeError as error:
            self._pipeline = None
            raise first_unreadable(self._source, indices, images, error) from error
        self._height[indices], self._width[indices] = shapes[:, 0], shapes[:, 1]


def first_unreadable(
    source: Source, indices: list[int], images: list[np.ndarray], error: RuntimeError
) -> UnreadableImageError | GraphError:
    """The exception to raise for a batch that did not decode: it names the first image that does not.

    Every image is decoded by itself on the CPU. If all of them decode, the fault is elsewhere, on a GPU for instance.
    """
    results = Decoder().decode([image.tobytes() for image in images])
    for index, result in zip(indices, results, strict=True):
        if isinstance(result, Undecodable):
            return UnreadableImageError(
                f"cannot decode {source.describe(index)}: {result.reason}; "
                "remove it, or run softfeed convert, which sets bad images aside"
            )
    names = ", ".join(source.describe(index) for index in indices[:3])
    return GraphError(
        f"the graph failed on a batch whose images decode on the CPU one by one ({names}, ...): {_last_line(error)}"
    )


def _last_line(error: RuntimeError) -> str:
    """What DALI says at the end of its report, before its remarks about the pipeline."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Current pipeline", "[frame", "C++ context"))]
    return told[-1] if told else "no reason given"
