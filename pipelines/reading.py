"""Reading ahead: a background thread that turns steps of an epoch into batches ready for the graph."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from .shards import recordio
from .sources import Source

Item = TypeVar("Item")
Result = TypeVar("Result")

# Raw sets of up to this many bytes are read into memory once: a batch of CIFAR is then one copy instead of a system
# call per image, which is a quarter of what such an image costs altogether.
_IN_MEMORY = 1 << 30

_OPEN_FILES = 128  # shards kept open; far below the usual limit of 1,024 descriptors


class ReadError(OSError):
    """A sample's bytes could not be read; the message names the file and the sample."""


class SampleReader:
    """Reads the bytes of samples, by position in the file: any order costs the same.

    Args:
        source: The data set.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._open: OrderedDict[int, int] = OrderedDict()
        self._pixels: np.ndarray | None = None
        self._fits = source.raw_shape is not None and len(source) * math.prod(source.raw_shape) <= _IN_MEMORY

    def read(self, indices: np.ndarray) -> list[np.ndarray] | np.ndarray:
        """Bytes of some samples.

        Returns:
            Encoded images: a list of uint8 arrays of shape (bytes,). Raw images: uint8 (N, height, width, 3).

        Raises:
            ReadError: if a file is missing, unreadable or shorter than the data set says.
        """
        if self._fits:
            if self._pixels is None:
                self._pixels = np.asarray(self._read(np.arange(len(self._source))))
            return self._pixels[indices]
        return self._read(indices)

    def _read(self, indices: np.ndarray) -> list[np.ndarray] | np.ndarray:
        source = self._source
        if source.shard_set is None:
            return [self._read_file(source.files[file]) for file in source.file[indices].tolist()]
        if source.raw_shape is None:
            images = [np.empty(size, np.uint8) for size in source.size[indices].tolist()]
        else:
            images = np.empty((len(indices), *source.raw_shape), np.uint8)
        places = zip(source.file[indices].tolist(), source.offset[indices].tolist(), images, strict=True)
        for row, (file, offset, image) in enumerate(places):
            try:
                count = os.preadv(self._descriptor(file), [image.data], offset)
            except OSError as error:
                raise self._trouble(indices[row], error.strerror or str(error)) from error
            if count != image.nbytes:
                raise self._trouble(
                    indices[row],
                    f"the file ends after {count} of {image.nbytes} bytes; "
                    "the shard was cut or replaced since it was opened, convert it again",
                )
        if source.multipart:
            self._join_parts(indices, images)
        return images

    def _join_parts(self, indices: np.ndarray, images: list[np.ndarray] | np.ndarray) -> None:
        """Read those images again that RecordIO holds in several parts, which begin with the record's own words."""
        for row, index in enumerate(indices.tolist()):
            if parts := self._source.multipart.get(index):
                head = recordio.CONTAINER.first_offset
                size = head + images[row].nbytes + 4 * (parts - 1)
                descriptor = self._descriptor(int(self._source.file[index]))
                record = os.pread(descriptor, size, int(self._source.offset[index]) - head)
                try:
                    images[row].reshape(-1)[...] = np.frombuffer(recordio.unwrap(record), np.uint8)
                except ValueError as error:
                    raise self._trouble(index, f"{error}; convert it again") from None

    def close(self) -> None:
        """Close the files and forget what was read."""
        self._pixels = None
        while self._open:
            os.close(self._open.popitem()[1])

    def _trouble(self, index: int, what: str) -> ReadError:
        return ReadError(f"cannot read {self._source.describe(int(index))}: {what}")

    @staticmethod
    def _read_file(path: str) -> np.ndarray:
        try:
            image = np.fromfile(path, np.uint8)
        except OSError as error:
            raise ReadError(f"cannot read {path}: {error.strerror or error}") from error
        if not len(image):
            raise ReadError(f"cannot read {path}: the file is empty; remove it")
        return image

    def _descriptor(self, file: int) -> int:
        descriptor = self._open.get(file)
        if descriptor is not None:
            self._open.move_to_end(file)
            return descriptor
        if len(self._open) >= _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[file] = os.open(self._source.files[file], os.O_RDONLY | os.O_CLOEXEC)
        return self._open[file]


@dataclass(frozen=True)
class Failure:
    """Stands in the place of an item that failed, and ends the items."""

    error: BaseException


class ReadAhead(Generic[Item, Result]):
    """Runs `produce` over some items in a background thread, a few items ahead of the consumer.

    Iterate over it. An exception in the thread comes as a `Failure` at the place of the item that it belongs to, so
    that the consumer can finish the items before it. `close` stops the thread, also in the middle; the thread holds
    nothing but `produce` and `items`.

    Args:
        produce: Called in the thread with one item at a time, in order.
        items: What to call it with.
        depth: Results kept ahead, >= 1.
    """

    def __init__(self, produce: Callable[[Item], Result], items: Iterable[Item], *, depth: int) -> None:
        self._results: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._stopping = threading.Event()
        arguments = (produce, items, self._results, self._stopping)
        self._thread = threading.Thread(target=_produce, args=arguments, name="softfeed-reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Result | Failure]:
        while (result := self._results.get()) is not _END:
            yield result
            if isinstance(result, Failure):
                return

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stopping.set()
        self._thread.join()


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

    try:
        for item in items:
            if stopping.is_set():
                return
            put(produce(item))
        put(_END)
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, whatever it is
        put(Failure(error))
